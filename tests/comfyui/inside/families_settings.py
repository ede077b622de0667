"""What the classes of `comfy.supported_models` that make pictures are built with, as small as they run.

Films, sound and solids stand in `families_films`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import zoo
from zoo import TEXT

Settings = dict[str, Any]
UNET = "unet"
"""How a UNet's maps are proved: by its own queries and keys, see `truth.unet_maps`."""


@dataclass(frozen=True)
class Joint:
    """Where text and picture stand in an attention that holds both.

    Attributes:
        text: first column of the text.
        picture: first place of the picture; its frames follow each other.
        places: of the whole attention.
        grid: (h, w) of a frame in patches.
        order: which column of the text each of its keys is, where they are not in order.
    """

    text: int
    picture: int
    places: int
    grid: tuple[int, int] = (6, 10)
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cross:
    """The same of an attention from the picture to the text alone; `picture` and `places` are of the queries, and `keys`
    the text's columns, where they are more than the context has."""

    places: int
    picture: int = 0
    grid: tuple[int, int] = (6, 10)
    keys: int = 0


@dataclass(frozen=True)
class Family:
    """A class of `comfy.supported_models`, reduced.

    Attributes:
        name: of the class.
        settings: of its network, put over what the class itself says.
        width: of the context, random numbers `[1, columns, width]`.
        columns: of the context.
        pooled: width of the pooled text, 0 where there is none.
        size: (height, width) of the latent.
        frames: of the latent, where it has any.
        images: pictures of the batch.
        shapes: of the latent's tensors, where it is not `[images, channels, (frames,) height, width]`; several are one latent.
        given: what else the conditioning holds; a tuple is a shape of random numbers.
        weights: shapes of what the class takes out of a checkpoint to build its network.
        params: module and class of the network's settings, where they differ between versions of ComfyUI.
        cfg: strength of the guidance; at 1 the negative prompt is not predicted.
        module: of `comfy.ldm`, whose attention is called without the options of the model.
        apart: its blocks whose attention is not the picture's.
        mixes_text: whether a summary of the text goes into everything, so that NaN in it says nothing.
        maps: how its maps are proved; None where there is no proof, so that there may be no maps.
        refusable: whether no maps are right as well, though there is a proof.
        named: whether a refusal names the network's class; a UNet without words is none that is not known.
    """

    name: str
    settings: Settings
    width: int = 48
    columns: int = TEXT
    pooled: int = 0
    size: tuple[int, int] = (12, 20)
    frames: int = 1
    images: int = 1
    shapes: tuple[tuple[int, ...], ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    params: tuple[str, str] | None = None
    cfg: float = 3.0
    mixes_text: bool = False
    module: str = ""
    apart: str = ""
    maps: Joint | Cross | str | None = None
    refusable: bool = False
    named: bool = True


ALL = {"attention_mask": torch.ones(1, TEXT, dtype=torch.long)}
"""A mask that leaves no column out."""

# -- UNets ----------------------------------------------------------------------------------------------------------

_SD1 = zoo._UNET | {"context_dim": 48, "num_heads": -1, "num_head_channels": 16}
_SD2 = _SD1 | {"use_linear_in_transformer": True}
_UNCLIP = _SD2 | {"num_classes": "sequential"}
_VIDEO = _UNCLIP | {
    "in_channels": 8, "use_temporal_attention": True, "use_temporal_resblock": True, "extra_ff_mix_layer": True,
    "use_spatial_context": True, "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
}  # fmt: skip


def _unet(name: str, settings: Settings, **more: Any) -> Family:
    return Family(name, settings, size=(16, 16), maps=UNET, **more)


def _xl(name: str, depth: int, numbers: int = 6, **more: Any) -> Family:
    depths = {"transformer_depth": [0, depth], "transformer_depth_output": [0, 0, depth, depth]}
    own = {"transformer_depth_middle": depth, "adm_in_channels": 40 + numbers * 256}
    return _unet(name, _UNCLIP | depths | own | more, pooled=40)


def _video(name: str, numbers: int) -> Family:
    return Family(name, _VIDEO | {"adm_in_channels": numbers}, columns=1, size=(16, 16), images=3, named=False)


UNETS = {
    "stable_diffusion_1": (
        _unet("SD15", _SD1),
        _unet("SD15_instructpix2pix", _SD1 | {"in_channels": 8}),
        _unet("Stable_Zero123", _SD1 | {"in_channels": 8}, columns=1, width=32,
              weights={"cc_projection.weight": (48, 32), "cc_projection.bias": (48,)}),
    ),
    "stable_diffusion_2": (
        _unet("SD20", _SD2),
        _unet("SD21UnclipL", _UNCLIP | {"adm_in_channels": 1536}),
        _unet("SD21UnclipH", _UNCLIP | {"adm_in_channels": 2048}),
        _unet("LotusD", _UNCLIP | {"adm_in_channels": 4}),
        _unet("SD_X4Upscaler", _SD2 | {"in_channels": 7, "num_classes": 1000, "disable_self_attentions": [True, False]}),
    ),
    "stable_diffusion_xl": (
        _xl("SDXL", 2),
        _xl("SDXLRefiner", 2, 5),
        _xl("SDXL_instructpix2pix", 2, in_channels=8),
        _xl("SSD1B", 3),
        _xl("Segmind_Vega", 1),
        _xl("KOALA_700M", 4),
        _xl("KOALA_1B", 5),
    ),
    "stable_video_diffusion": (_video("SVD_img2vid", 768), _video("SV3D_u", 256), _video("SV3D_p", 1280)),
}  # fmt: skip

# -- transformers ---------------------------------------------------------------------------------------------------

_SHORT = Joint(0, TEXT, TEXT + 60)
_SPARSE = Cross(12 * 24, grid=(12, 24))
_TWO = Cross(60, keys=TEXT + 16)
_LARGE = Joint(0, TEXT, TEXT + 240, (12, 20))
_FLUX: Settings = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 40, "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 2.0,
    "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
_FLUX2 = {
    "vec_in_dim": None, "in_channels": 128, "out_channels": 128, "patch_size": 1, "axes_dim": [8, 8, 8, 8], "txt_ids_dims": [3],
    "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False, "default_ref_method": "index",
    "ref_index_scale": 10.0,
}  # fmt: skip
_CHROMA = _FLUX | {
    "in_channels": 64, "out_channels": 64, "vec_in_dim": 0, "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip
_RADIANCE = {
    "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1,
    "nerf_max_freqs": 4, "nerf_tile_size": 0, "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False,
    "use_sequential_txt_ids": False,
}  # fmt: skip
_NEXT: Settings = {
    "patch_size": 2, "in_channels": 16, "dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 1,
    "cap_feat_dim": 48, "axes_dims": [8, 12, 12], "axes_lens": [300, 512, 512], "qk_norm": True,
}  # fmt: skip
_ZIMAGE = _NEXT | {
    "dim": 256, "n_heads": 8, "n_kv_heads": 8, "pad_tokens_multiple": 32, "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip
_PADDED = Joint(0, 32, 32 + 64)
_HEADS = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32}
_QWEN = _HEADS | {"in_channels": 64, "out_channels": 16, "joint_attention_dim": 48, "axes_dims_rope": [8, 12, 12]}
_OMNIGEN = {
    "patch_size": 2, "in_channels": 16, "hidden_size": 64, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 2,
    "num_kv_heads": 1, "axes_dim_rope": (8, 12, 12),
}  # fmt: skip
_PIXELS = {
    "in_channels": 3, "num_groups": 2, "hidden_size": 64, "pixel_hidden_size": 8, "pixel_attn_hidden_size": 32,
    "pixel_num_groups": 2, "patch_depth": 2, "pixel_depth": 1, "patch_size": 16, "txt_embed_dim": 48, "txt_max_length": TEXT,
}  # fmt: skip
_PIXART = {"in_channels": 4, "hidden_size": 96, "depth": 2, "num_heads": 2, "caption_channels": 48, "pe_interpolation": 2}
_HUNYUAN = {
    "input_size": 16, "hidden_size": 64, "depth": 2, "num_heads": 2, "text_states_dim": 48, "text_states_dim_t5": 40,
    "text_len": TEXT, "text_len_t5": 16, "size_cond": False, "use_style_cond": False,
}  # fmt: skip
_TWO_TEXTS = {
    "attention_mask": torch.ones(1, TEXT), "conditioning_mt5xl": (1, 16, 40), "attention_mask_mt5xl": torch.ones(1, 16),
}  # fmt: skip


def _flux(name: str, maps: Joint = _SHORT, columns: int = TEXT, **more: Any) -> Family:
    return Family(name, _FLUX | more, columns=columns, pooled=40, params=("flux.model", "FluxParams"), maps=maps)


PICTURES = {
    "sd3": (
        Family("SD3", {
            "input_size": None, "patch_size": 2, "in_channels": 16, "depth": 2, "adm_in_channels": 40, "pos_embed_max_size": 32,
            "num_patches": 32 * 32, "pos_embed_scaling_factor": None, "qk_norm": "rms",
            "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128}},
        }, pooled=40, maps=_SHORT),
    ),
    "flux": (_flux("Flux"), _flux("FluxInpaint", in_channels=96), _flux("FluxSchnell", guidance_embed=False)),
    "flux2": (_flux("Flux2", Joint(0, 512, 512 + 240, (12, 20)), 512, **_FLUX2),),
    "longcat_image": (_flux("LongCatImage", guidance_embed=False, vec_in_dim=None, txt_ids_dims=[1, 2]),),
    "chroma": (Family("Chroma", _CHROMA, pooled=40, params=("chroma.model", "ChromaParams"), maps=_SHORT),),
    "chroma_radiance": (
        Family("ChromaRadiance", _CHROMA | _RADIANCE, pooled=40, size=(96, 160), maps=_SHORT,
               params=("chroma_radiance.model", "ChromaRadianceParams")),
    ),
    "qwen_image": (Family("QwenImage", _QWEN, maps=_SHORT),),
    "mage_flow": (Family("MageFlow", _QWEN | {"in_channels": 128, "out_channels": 128}, maps=_LARGE),),
    "lumina2": (Family("Lumina2", _NEXT, given=ALL, maps=_SHORT),),
    "z_image": (
        Family("ZImage", _ZIMAGE, given=ALL, maps=_PADDED),
        Family("ZImagePixelSpace", _ZIMAGE | {
            "patch_size": 16, "in_channels": 3, "decoder_hidden_size": 32, "decoder_num_res_blocks": 1, "decoder_max_freqs": 4,
        }, size=(96, 160), given=ALL, maps=_PADDED),
    ),
    "auraflow": (
        Family("AuraFlow", {
            "in_channels": 4, "out_channels": 4, "patch_size": 2, "dim": 64, "n_layers": 2, "n_double_layers": 1, "n_heads": 2,
            "global_conddim": 64, "cond_seq_dim": 48, "max_seq": 1024,
        }, maps=Joint(8, 8 + TEXT, 8 + TEXT + 60), refusable=True),
    ),
    "pixart": (
        Family("PixArtAlpha", _PIXART | {"micro_condition": True}, size=(24, 48), given={"width": 384, "height": 192},
               module="pixart.blocks", maps=_SPARSE),
        Family("PixArtSigma", _PIXART | {"micro_condition": False}, size=(24, 48), module="pixart.blocks", maps=_SPARSE),
    ),
    "hunyuan_dit": (
        Family("HunyuanDiT", _HUNYUAN | {"size_cond": True, "use_style_cond": True}, given=_TWO_TEXTS,
               module="hydit.attn_layers", maps=_TWO),
        Family("HunyuanDiT1", _HUNYUAN, given=_TWO_TEXTS, module="hydit.attn_layers", maps=_TWO),
    ),
    "stable_cascade": (
        Family("Stable_Cascade_C", {
            "c_cond": 64, "c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]], "c_clip_text": 48,
            "c_clip_text_pooled": 40,
        }, pooled=40),
        Family("Stable_Cascade_B", {
            "c_cond": 64, "c_hidden": [32, 32, 64, 64], "nhead": [-1, -1, 2, 2], "blocks": [[1] * 4, [1] * 4],
            "block_repeat": [[1] * 4, [1] * 4], "c_clip": 40,
        }, pooled=40, size=(32, 32), given={"stable_cascade_prior": (1, 16, 4, 4)}),
    ),
    "hidream": (
        Family("HiDream", {
            "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_single_layers": 1,
            "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": [48, 48], "text_emb_dim": 40,
            "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": [16, 8, 8], "max_resolution": [128, 128],
            "llama_layers": [0, 1],
        }, pooled=40, given={"conditioning_llama3": (1, 2, 9, 48)},
           maps=Joint(60, 0, 60 + TEXT + 18, order=(*range(TEXT + 9), *range(TEXT, TEXT + 9)))),
    ),
    "ideogram": (
        Family("Ideogram4", _HEADS | {
            "in_channels": 128, "intermediate_size": 64, "adaln_dim": 32, "llm_features_dim": 48, "mrope_section": (8, 4, 4),
        }, maps=_LARGE),
    ),
    "krea2": (
        Family("Krea2", {
            "features": 64, "tdim": 32, "txtdim": 24, "heads": 2, "kvheads": 1, "multiplier": 2, "layers": 2, "channels": 16,
            "txtlayers": 2, "txtheads": 2, "txtkvheads": 2,
        }, maps=_SHORT),
    ),
    "lens": (
        Family("Lens", _HEADS | {
            "in_channels": 128, "out_channels": 32, "enc_hidden_dim": 12, "axes_dims_rope": (8, 12, 12),
            "selected_layer_index": (0, 1, 2, 3),
        }, maps=Joint(240, 0, 240 + TEXT, (12, 20))),
    ),
    "ernie_image": (
        Family("ErnieImage", {
            "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 64, "in_channels": 128,
            "out_channels": 128, "text_in_dim": 48, "rope_axes_dim": (8, 12, 12),
        }, module="ernie.model", maps=Joint(240, 0, 240 + TEXT, (12, 20))),
    ),
    "joyimage": (
        Family("JoyImage", {
            "hidden_size": 64, "num_attention_heads": 2, "text_dim": 48, "num_layers": 2, "rope_dim_list": [8, 12, 12],
            "patch_size": [1, 2, 2],
        }, maps=Joint(60, 0, 60 + TEXT)),
    ),
    "omnigen2": (Family("Omnigen2", _OMNIGEN | {"text_feat_dim": 48}, given=ALL, maps=_SHORT),),
    "boogu": (Family("Boogu", _OMNIGEN | {"num_double_stream_layers": 1, "instruction_feat_dim": 48}, given=ALL, maps=_SHORT),),
    "pixeldit": (
        Family("PixelDiTT2I", _PIXELS, size=(96, 160), maps=_SHORT),
        Family("PiD", _PIXELS | {"lq_hidden_dim": 32, "lq_num_res_blocks": 1}, size=(96, 160),
               given={"lq_latent": (1, 16, 3, 5), "degrade_sigma": (1,)}, maps=_SHORT),
    ),
}  # fmt: skip
