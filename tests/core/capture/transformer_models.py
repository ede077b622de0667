"""Small random transformers of every family that is read, and what they are called with: pictures that are not square, two
texts of different length where the model takes a mask, references where the family has them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BATCH, TEXT, HEADS, WIDTH = 2, 7, 2, 8
KEPT = (7, 4)
"""Columns of text that are no padding, in each row."""


@dataclass
class Case:
    """A model and one call of it.

    Attributes:
        module: its module in diffusers and its class.
        make: makes the model.
        given: the arguments of the call.
        text: the names of the arguments that hold text.
        picture: the name of the argument that holds the picture.
        own: the slice of the picture's argument that is the picture itself, not a reference.
        grid: (frames, height, width) in patches.
        order: for each text key, in order, which column of the text it is, for each row; None is one after the other.
        pooled: the module that makes one vector of the text, which then reaches the whole picture beside all attention.
        text_own: the slice of the text's argument that is text.
        apart: the part of the model whose attention to the text is not counted, because it is a control's.
    """

    module: str
    make: Callable[[], nn.Module]
    given: dict[str, Any]
    grid: tuple[int, int, int]
    text: tuple[str, ...] = ("encoder_hidden_states",)
    picture: str = "hidden_states"
    own: Any = ...
    order: Sequence[Sequence[int]] | None = None
    pooled: str = ""
    apart: str = ""
    text_own: Any = ...


def model_class(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"diffusers.models.transformers.{module}"), name)


def build(case: Case, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = case.make().eval()
    # Random weights attend nearly alike to all; the bias of some models' last layers starts at zero.
    for name, weight in model.named_parameters():
        if weight.dim() >= 2 and any(part in name for part in ("to_q", "to_k", "add_q", "add_k", "qkv")):
            weight.data *= 4
        elif weight.dim() >= 1 and not weight.any():
            weight.data.normal_(std=0.05)
    return model


def _rand(*shape: int) -> Tensor:
    return torch.randn(*shape)


def _ids(height: int, width: int, axes: int = 3, kind: float = 0.0) -> Tensor:
    ids = torch.zeros(height, width, axes)
    ids[..., 0] = kind
    ids[..., 1] += torch.arange(height)[:, None]
    ids[..., 2] += torch.arange(width)[None]
    return ids.reshape(-1, axes)


def _mask() -> Tensor:
    mask = torch.zeros(BATCH, TEXT, dtype=torch.long)
    for row, kept in enumerate(KEPT):
        mask[row, :kept] = 1
    return mask


def _make(path: str, **config: Any) -> tuple[str, Callable[[], nn.Module]]:
    return path, lambda: model_class(path)(**config)


_TIME = torch.full((BATCH,), 0.5)
_PACKED: dict[str, Any] = {"timestep": _TIME, "encoder_hidden_states": _rand(BATCH, TEXT, 16)}
_POSITIONS = {"img_ids": _ids(2, 3), "txt_ids": torch.zeros(TEXT, 3)}
_REFERENCE = torch.cat([_ids(2, 3), _ids(2, 2, kind=1.0)])


def _flux(path: str, more: dict[str, Any] | None = None, given: dict[str, Any] | None = None, **config: Any) -> Case:
    made = {
        "in_channels": 4, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": WIDTH, "num_attention_heads": HEADS,
        "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    module, make = _make(path, **{**made, **config})
    own = {"hidden_states": _rand(BATCH, 6, 4), **_PACKED, **_POSITIONS, **(given or {}), **(more or {})}
    return Case(module, make, own, (1, 2, 3), own=(slice(None), slice(0, 6)))


_POOLED = {"pooled_projections": _rand(BATCH, 12)}


def _latent(path: str, channels: int = 4, given: dict[str, Any] | None = None, pooled: str = "", **config: Any) -> Case:
    module, make = _make(path, **config)
    own = {"hidden_states": _rand(BATCH, channels, 4, 6), **_PACKED, **(given or {})}
    return Case(module, make, own, (1, 2, 3), pooled=pooled)


def _video(
    path: str, given: dict[str, Any] | None = None, own: Any = ..., pooled: str = "", apart: str = "", **config: Any
) -> Case:
    module, make = _make(path, **config)
    arguments = {"hidden_states": _rand(BATCH, 4, 2, 4, 6), **_PACKED, **(given or {})}
    return Case(module, make, arguments, (2, 2, 3), own=own, pooled=pooled, apart=apart)


_WAN: dict[str, Any] = {
    "num_attention_heads": HEADS, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 16,
    "freq_dim": 16, "ffn_dim": 16, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
_WAN_SHORT: dict[str, Any] = {name: value for name, value in _WAN.items() if name != "rope_max_seq_len"}
_SIZES: dict[str, Any] = {
    "original_size": torch.full((BATCH, 2), 32.0), "target_size": torch.full((BATCH, 2), 32.0),
    "crop_coords": torch.zeros(BATCH, 2),
}  # fmt: skip


def _hunyuan_image_order() -> list[list[int]]:
    """ByT5 has 3 columns behind the 7 of the language model, of which it keeps 2 and 3."""
    glyphs: list[list[int]] = [[7, 8], [7, 8, 9]]
    rest: list[list[int]] = [[9], []]
    return [[*glyphs[row], *range(KEPT[row]), *rest[row], *range(KEPT[row], TEXT)] for row in range(BATCH)]


_GLYPHS = torch.tensor([[1, 1, 0], [1, 1, 1]])

CASES: dict[str, Case] = {
    "flux": _flux("transformer_flux.FluxTransformer2DModel", _POOLED, pooled_projection_dim=12),
    "flux kontext": _flux(
        "transformer_flux.FluxTransformer2DModel",
        _POOLED,
        {"hidden_states": _rand(BATCH, 10, 4), "img_ids": _REFERENCE},
        pooled_projection_dim=12,
    ),
    "flux 2": _flux(
        "transformer_flux2.Flux2Transformer2DModel",
        {"guidance": _TIME},
        {"img_ids": _ids(2, 3, 4), "txt_ids": torch.zeros(TEXT, 4)},
        axes_dims_rope=(2, 2, 2, 2),
        timestep_guidance_channels=16,
    ),
    "chroma": _flux(
        "transformer_chroma.ChromaTransformer2DModel",
        {"attention_mask": torch.cat([_mask().float(), torch.ones(BATCH, 6)], 1)},
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    ),
    "sd3": _latent(
        "transformer_sd3.SD3Transformer2DModel",
        given=_POOLED,
        sample_size=8,
        in_channels=4,
        num_layers=2,
        attention_head_dim=WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=12,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ),
    "qwen": Case(
        *_make(
            "transformer_qwenimage.QwenImageTransformer2DModel",
            in_channels=4,
            out_channels=1,
            num_layers=2,
            attention_head_dim=WIDTH,
            num_attention_heads=HEADS,
            joint_attention_dim=16,
            axes_dims_rope=(2, 2, 4),
        ),
        {
            "hidden_states": _rand(BATCH, 10, 4),
            **_PACKED,
            "encoder_hidden_states_mask": _mask().bool(),
            "img_shapes": [[(1, 2, 3), (1, 2, 2)]] * BATCH,
        },
        (1, 2, 3),
        own=(slice(None), slice(0, 6)),
    ),
    "z-image": Case(
        *_make(
            "transformer_z_image.ZImageTransformer2DModel",
            in_channels=4,
            dim=16,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=HEADS,
            n_kv_heads=HEADS,
            cap_feat_dim=16,
            axes_dims=[2, 2, 4],
            axes_lens=[128, 32, 32],
        ),
        {"x": [_rand(4, 1, 4, 6) for _ in range(BATCH)], "t": _TIME, "cap_feats": [_rand(37, 16), _rand(5, 16)]},
        (1, 2, 3),
        text=("cap_feats",),
        picture="x",
    ),
    "lumina 2": _latent(
        "transformer_lumina2.Lumina2Transformer2DModel",
        given={"encoder_attention_mask": _mask().bool()},
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=HEADS,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(32, 16, 16),
        cap_feat_dim=16,
    ),
    "lumina": _latent(
        "lumina_nextdit2d.LuminaNextDiT2DModel",
        given={
            "encoder_mask": _mask().bool(),
            "image_rotary_emb": torch.ones(16, 16, 4, dtype=torch.complex64),
            "cross_attention_kwargs": {},
        },
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=HEADS,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=16,
        pooled="time_caption_embed",
    ),
    "auraflow": _latent(
        "auraflow_transformer_2d.AuraFlowTransformer2DModel",
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=16,
        caption_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=16,
    ),
    "hidream": Case(
        *_make(
            "transformer_hidream_image.HiDreamImageTransformer2DModel",
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=WIDTH,
            num_attention_heads=HEADS,
            caption_channels=[16, 16],
            text_emb_dim=12,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(8, 8),
            llama_layers=[0, 1],
            force_inference_output=True,
        ),
        {
            "hidden_states": _rand(BATCH, 4, 4, 6),
            "timesteps": _TIME,
            "encoder_hidden_states_t5": _rand(BATCH, TEXT, 16),
            "encoder_hidden_states_llama3": _rand(2, BATCH, 5, 16),
            "pooled_embeds": _rand(BATCH, 12),
        },
        (1, 2, 3),
        text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
        order=[[*range(12), *range(7, 12)]] * BATCH,
    ),
    "pixart": _latent(
        "pixart_transformer_2d.PixArtTransformer2DModel",
        given={"encoder_attention_mask": _mask(), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=16,
        use_additional_conditions=False,
    ),
    "sana": Case(
        *_make(
            "sana_transformer.SanaTransformer2DModel",
            in_channels=4,
            out_channels=4,
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            num_layers=2,
            num_cross_attention_heads=HEADS,
            cross_attention_head_dim=WIDTH,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
        ),
        {"hidden_states": _rand(BATCH, 4, 2, 3), **_PACKED, "encoder_attention_mask": _mask()},
        (1, 2, 3),
    ),
    "hunyuan dit": Case(
        *_make(
            "hunyuan_transformer_2d.HunyuanDiT2DModel",
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            in_channels=4,
            patch_size=2,
            sample_size=8,
            hidden_size=16,
            num_layers=2,
            cross_attention_dim=16,
            cross_attention_dim_t5=16,
            pooled_projection_dim=4,
            text_len=TEXT,
            text_len_t5=5,
            use_style_cond_and_image_meta_size=False,
        ),
        {
            "hidden_states": _rand(BATCH, 4, 4, 6),
            "timestep": _TIME,
            "encoder_hidden_states": _rand(BATCH, TEXT, 16),
            "text_embedding_mask": torch.ones(BATCH, TEXT),
            "encoder_hidden_states_t5": _rand(BATCH, 5, 16),
            "text_embedding_mask_t5": torch.ones(BATCH, 5),
            "image_meta_size": None,
            "style": None,
            "image_rotary_emb": (torch.ones(6, WIDTH), torch.zeros(6, WIDTH)),
        },
        (1, 2, 3),
        text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        pooled="time_extra_emb",
    ),
    "hunyuan image": Case(
        *_make(
            "transformer_hunyuanimage.HunyuanImageTransformer2DModel",
            in_channels=4,
            out_channels=4,
            patch_size=(1, 1),
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=12,
            rope_axes_dim=(4, 4),
        ),
        {
            "hidden_states": _rand(BATCH, 4, 2, 3),
            **_PACKED,
            "encoder_attention_mask": _mask(),
            "encoder_hidden_states_2": _rand(BATCH, 3, 12),
            "encoder_attention_mask_2": _GLYPHS,
        },
        (1, 2, 3),
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        order=_hunyuan_image_order(),
    ),
    "cogview 3": _latent(
        "transformer_cogview3plus.CogView3PlusTransformer2DModel",
        given=_SIZES,
        in_channels=4,
        num_layers=2,
        attention_head_dim=WIDTH,
        num_attention_heads=HEADS,
        out_channels=4,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    ),
    "cogview 4": _latent(
        "transformer_cogview4.CogView4Transformer2DModel",
        given=_SIZES,
        in_channels=4,
        num_layers=2,
        attention_head_dim=WIDTH,
        num_attention_heads=HEADS,
        out_channels=4,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        rope_axes_dim=(4, 4),
    ),
    "ideogram 4": Case(
        *_make(
            "transformer_ideogram4.Ideogram4Transformer2DModel",
            in_channels=4,
            num_layers=2,
            attention_head_dim=WIDTH,
            num_attention_heads=HEADS,
            intermediate_size=16,
            adaln_dim=8,
            llm_features_dim=16,
            mrope_section=(2, 1, 1),
        ),
        {
            "hidden_states": _rand(BATCH, TEXT + 6, 4),
            "timestep": _TIME,
            "encoder_hidden_states": torch.cat([_rand(BATCH, TEXT, 16), torch.zeros(BATCH, 6, 16)], 1),
            "position_ids": torch.cat([torch.zeros(TEXT, 3), _ids(2, 3) + 9]).long().expand(BATCH, -1, -1),
            "segment_ids": torch.cat([_mask().flip(1) * 2 - 1, torch.ones(BATCH, 6, dtype=torch.long)], 1),
            "indicator": torch.cat([_mask().flip(1) * 3, torch.full((BATCH, 6), 2)], 1),
        },
        (1, 2, 3),
        own=(slice(None), slice(TEXT, None)),
        text_own=(slice(None), slice(0, TEXT)),
    ),
    "krea 2": Case(
        *_make(
            "transformer_krea2.Krea2Transformer2DModel",
            in_channels=4,
            num_layers=2,
            attention_head_dim=WIDTH,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=16,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=3,
            text_num_attention_heads=2,
            text_num_key_value_heads=2,
            text_intermediate_size=16,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 2, 2),
        ),
        {
            "hidden_states": _rand(BATCH, 6, 4),
            "encoder_hidden_states": _rand(BATCH, TEXT, 3, 16),
            "timestep": _TIME,
            "position_ids": torch.cat([torch.zeros(TEXT, 3), _ids(2, 3)]),
            "encoder_attention_mask": _mask().bool(),
        },
        (1, 2, 3),
    ),
    "bria": _flux("transformer_bria.BriaTransformer2DModel", num_single_layers=1, axes_dims_rope=[2, 2, 4]),
    "bria fibo": _flux(
        "transformer_bria_fibo.BriaFiboTransformer2DModel",
        {"text_encoder_layers": [_rand(BATCH, TEXT, 8) for _ in range(3)]},
        axes_dims_rope=[2, 2, 4],
        text_encoder_dim=8,
    ),
    "ovis": _flux("transformer_ovis_image.OvisImageTransformer2DModel", out_channels=4),
    "longcat": _flux("transformer_longcat_image.LongCatImageTransformer2DModel", axes_dims_rope=[2, 2, 4]),
    "prx": _latent(
        "transformer_prx.PRXTransformer2DModel",
        given={"attention_mask": _mask().bool()},
        in_channels=4,
        context_in_dim=16,
        hidden_size=16,
        num_heads=HEADS,
        depth=2,
        axes_dim=[4, 4],
    ),
    "kandinsky 5": Case(
        *_make(
            "transformer_kandinsky.Kandinsky5Transformer3DModel",
            in_visual_dim=4,
            in_text_dim=16,
            in_text_dim2=12,
            time_dim=16,
            out_visual_dim=4,
            model_dim=16,
            ff_dim=16,
            num_text_blocks=1,
            num_visual_blocks=2,
            axes_dims=(2, 2, 4),
        ),
        {
            "hidden_states": _rand(BATCH, 2, 4, 6, 4),
            **_PACKED,
            **_POOLED,
            "visual_rope_pos": [torch.arange(2), torch.arange(2), torch.arange(3)],
            "text_rope_pos": torch.arange(TEXT),
        },
        (2, 2, 3),
    ),
    "ernie": Case(
        *_make(
            "transformer_ernie_image.ErnieImageTransformer2DModel",
            hidden_size=16,
            num_attention_heads=HEADS,
            num_layers=2,
            ffn_hidden_size=16,
            in_channels=4,
            out_channels=4,
            text_in_dim=16,
            rope_axes_dim=(4, 2, 2),
        ),
        {
            "hidden_states": _rand(BATCH, 4, 2, 3),
            "timestep": _TIME,
            "text_bth": _rand(BATCH, TEXT, 16),
            "text_lens": torch.tensor(KEPT),
        },
        (1, 2, 3),
        text=("text_bth",),
    ),
    "glm": _latent(
        "transformer_glm_image.GlmImageTransformer2DModel",
        given={
            "prior_token_id": torch.zeros(BATCH, 6, dtype=torch.long),
            "prior_token_drop": torch.zeros(BATCH, 6).bool(),
            "target_size": torch.full((BATCH, 2), 32.0),
            "crop_coords": torch.zeros(BATCH, 2),
            "attention_mask": _mask(),
            "timestep": torch.full((BATCH,), 5),
        },
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=WIDTH,
        num_attention_heads=HEADS,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=8,
    ),
    "joyimage": Case(
        *_make(
            "transformer_joyimage.JoyImageEditTransformer3DModel",
            patch_size=[1, 2, 2],
            in_channels=4,
            hidden_size=16,
            num_attention_heads=HEADS,
            text_dim=16,
            num_layers=2,
            rope_dim_list=[2, 2, 4],
        ),
        {"hidden_states": _rand(BATCH, 2, 4, 1, 4, 6), **_PACKED},
        (1, 2, 3),
        own=(slice(None), slice(1, 2)),
    ),
    "wan": _video("transformer_wan.WanTransformer3DModel", **_WAN),
    "wan vace": _video(
        "transformer_wan_vace.WanVACETransformer3DModel",
        {"control_hidden_states": _rand(BATCH, 6, 2, 4, 6)},
        apart="vace_blocks",
        vace_layers=[0],
        vace_in_channels=6,
        **_WAN,
    ),
    "wan i2v 2.1": _video(
        "transformer_wan.WanTransformer3DModel",
        {"encoder_hidden_states": _rand(BATCH, 512, 16), "encoder_hidden_states_image": _rand(BATCH, 5, 8)},
        image_dim=8,
        added_kv_proj_dim=24,
        **_WAN,
    ),
    "wan animate": _video(
        "transformer_wan_animate.WanAnimateTransformer3DModel",
        {
            "hidden_states": _rand(BATCH, 12, 3, 4, 6),
            "encoder_hidden_states_image": _rand(BATCH, 5, 8),
            "pose_hidden_states": _rand(BATCH, 4, 2, 4, 6),
            "face_pixel_values": _rand(BATCH, 3, 5, 16, 16),
        },
        own=(slice(None), slice(None), slice(1, 3)),
        **{**_WAN, "in_channels": 12},
        latent_channels=4,
        image_dim=8,
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=2,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
    ),
    "skyreels": _video("transformer_skyreels_v2.SkyReelsV2Transformer3DModel", **_WAN),
    "chronoedit": _video("transformer_chronoedit.ChronoEditTransformer3DModel", **_WAN, rope_temporal_skip_len=4),
    "ltx": Case(
        *_make(
            "transformer_ltx.LTXVideoTransformer3DModel",
            in_channels=4,
            out_channels=4,
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            cross_attention_dim=16,
            num_layers=2,
            caption_channels=16,
        ),
        {
            "hidden_states": _rand(BATCH, 12, 4),
            **_PACKED,
            "encoder_attention_mask": _mask(),
            "num_frames": 2,
            "height": 2,
            "width": 3,
        },
        (2, 2, 3),
    ),
    "hunyuan video": _video(
        "transformer_hunyuan_video.HunyuanVideoTransformer3DModel",
        {"encoder_attention_mask": _mask(), "guidance": _TIME, **_POOLED},
        in_channels=4,
        out_channels=4,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=12,
        rope_axes_dim=(2, 2, 4),
    ),
    "hunyuan video 1.5": Case(
        *_make(
            "transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",
            in_channels=4,
            out_channels=4,
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            num_layers=2,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=12,
            image_embed_dim=8,
            rope_axes_dim=(2, 2, 4),
            target_size=16,
        ),
        {
            "hidden_states": _rand(BATCH, 4, 2, 2, 3),
            **_PACKED,
            "encoder_attention_mask": _mask(),
            "encoder_hidden_states_2": _rand(BATCH, 3, 12),
            "encoder_attention_mask_2": torch.ones(BATCH, 3, dtype=torch.long),
            "image_embeds": torch.zeros(BATCH, 4, 8),
        },
        (2, 2, 3),
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        order=[[7, 8, 9, *range(kept), *[-1] * 4, *range(kept, TEXT)] for kept in KEPT],
    ),
    "cogvideox": Case(
        *_make(
            "cogvideox_transformer_3d.CogVideoXTransformer3DModel",
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH,
            in_channels=4,
            out_channels=4,
            time_embed_dim=4,
            text_embed_dim=16,
            num_layers=2,
            sample_width=6,
            sample_height=4,
            sample_frames=5,
            max_text_seq_length=TEXT,
        ),
        {"hidden_states": _rand(BATCH, 2, 4, 4, 6), **_PACKED},
        (2, 2, 3),
    ),
    "mochi": _video(
        "transformer_mochi.MochiTransformer3DModel",
        {"encoder_attention_mask": _mask().bool()},
        pooled="time_embed",
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=4,
        max_sequence_length=TEXT,
    ),
    "allegro": _video(
        "transformer_allegro.AllegroTransformer3DModel",
        {"encoder_attention_mask": _mask(), "timestep": torch.full((BATCH,), 5)},
        num_attention_heads=HEADS,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        caption_channels=16,
        sample_height=4,
        sample_width=6,
        sample_frames=2,
    ),
    "latte": _video(
        "latte_transformer_3d.LatteTransformer3DModel",
        {"timestep": torch.full((BATCH,), 5)},
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        patch_size=2,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=16,
        video_length=2,
        attention_bias=True,
        activation_fn="gelu-approximate",
    ),
    "sana video": _video(
        "transformer_sana_video.SanaVideoTransformer3DModel",
        {"encoder_attention_mask": _mask()},
        in_channels=4,
        out_channels=4,
        num_attention_heads=HEADS,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=HEADS,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
        sample_size=8,
        rope_max_seq_len=32,
    ),
    "cosmos": _video(
        "transformer_cosmos.CosmosTransformer3DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=HEADS,
        attention_head_dim=16,
        num_layers=2,
        text_embed_dim=16,
        adaln_lora_dim=4,
        max_size=(4, 8, 8),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    ),
    "helios": _video(
        "transformer_helios.HeliosTransformer3DModel",
        {"timestep": torch.full((BATCH,), 5), "indices_hidden_states": torch.arange(2).expand(BATCH, -1)},
        rope_dim=(4, 4, 4),
        **_WAN_SHORT,
    ),
    "anyflow": Case(
        *_make("transformer_anyflow.AnyFlowTransformer3DModel", **_WAN),
        {
            "hidden_states": _rand(BATCH, 2, 4, 4, 6),
            "timestep": torch.full((BATCH, 2), 5.0),
            "r_timestep": torch.full((BATCH, 2), 2.0),
            "encoder_hidden_states": _rand(BATCH, TEXT, 16),
        },
        (2, 2, 3),
    ),
}
