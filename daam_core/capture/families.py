"""The registry of transformers that are read: one entry a family for every host, known by module and name of its classes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import UnsupportedModel
from . import comfyui_layouts as comfyui
from . import family_layouts as of
from .comfyui_layouts import ComfyUIModel
from .family import Family

_DIFFUSERS = "diffusers.models.transformers."
_JOINT = r"transformer_blocks\.\d+\.attn"
_BOTH = r"(single_)?transformer_blocks\.\d+\.attn"
_CROSS = r"transformer_blocks\.\d+\.attn2"
_WAN = r"blocks\.\d+\.attn2"

# ComfyUI builds several families from one class.
_FLUX_IN_COMFYUI = ComfyUIModel(("flux.model.Flux",), comfyui.with_references)
_NEXT_DIT_IN_COMFYUI = ComfyUIModel(("lumina.model.NextDiT",), comfyui.next_dit)

FAMILIES: tuple[Family, ...] = (
    Family(
        "Flux.1",
        ("transformer_flux.FluxTransformer2DModel",),
        _BOTH,
        of.by_positions,
        tokenizers=("tokenizer_2",),
        layout_arguments=("img_ids",),
        comfyui=_FLUX_IN_COMFYUI,
    ),
    Family(
        "Flux.2",
        ("transformer_flux2.Flux2Transformer2DModel",),
        _BOTH,
        of.flux2,
        layout_arguments=("img_ids",),
        comfyui=_FLUX_IN_COMFYUI,
    ),
    Family(
        "Chroma",
        ("transformer_chroma.ChromaTransformer2DModel",),
        _BOTH,
        of.by_positions,
        layout_arguments=("img_ids",),
        comfyui=ComfyUIModel(("chroma.model.Chroma",), comfyui.with_references),
    ),
    Family(
        "Stable Diffusion 3",
        ("transformer_sd3.SD3Transformer2DModel",),
        _JOINT,
        of.sd3,
        tokenizers=("tokenizer", "tokenizer_3"),
        comfyui=ComfyUIModel(("modules.diffusionmodules.mmdit.MMDiT",), comfyui.text_first),
    ),
    Family(
        "Qwen-Image",
        ("transformer_qwenimage.QwenImageTransformer2DModel",),
        _JOINT,
        of.by_shapes,
        comfyui=ComfyUIModel(("qwen_image.model.QwenImageTransformer2DModel",), comfyui.with_references),
    ),
    Family(
        "Z-Image",
        ("transformer_z_image.ZImageTransformer2DModel",),
        r"layers\.\d+\.attention",
        of.z_image,
        text=("cap_feats",),
        keeps="kept",
        comfyui=_NEXT_DIT_IN_COMFYUI,
    ),
    Family(
        "Lumina 2",
        ("transformer_lumina2.Lumina2Transformer2DModel",),
        r"layers\.\d+\.attn",
        of.lumina2,
        layout_arguments=("encoder_attention_mask",),
        comfyui=_NEXT_DIT_IN_COMFYUI,
    ),
    Family("Lumina", ("lumina_nextdit2d.LuminaNextDiT2DModel",), r"layers\.\d+\.attn2", of.latent_cross),
    Family(
        "AuraFlow",
        ("auraflow_transformer_2d.AuraFlowTransformer2DModel",),
        r"(joint|single)_transformer_blocks\.\d+\.attn",
        of.aura_flow,
        comfyui=ComfyUIModel(("aura.mmdit.MMDiT",), comfyui.auraflow),
    ),
    Family(
        "HiDream",
        ("transformer_hidream_image.HiDreamImageTransformer2DModel",),
        r"(double|single)_stream_blocks\.\d+\.block\.attn1",
        of.hidream,
        text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
        tokenizers=("tokenizer_3", "tokenizer_4"),
    ),
    Family("PixArt", ("pixart_transformer_2d.PixArtTransformer2DModel",), _CROSS, of.latent_cross),
    Family("Sana", ("sana_transformer.SanaTransformer2DModel",), _CROSS, of.latent_cross, keeps="first and tail"),
    Family(
        "HunyuanDiT",
        ("hunyuan_transformer_2d.HunyuanDiT2DModel",),
        _WAN,
        of.hunyuan_dit,
        text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        tokenizers=("tokenizer", "tokenizer_2"),
    ),
    Family(
        "HunyuanImage 2.1",
        ("transformer_hunyuanimage.HunyuanImageTransformer2DModel",),
        _BOTH,
        of.hunyuan_image,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        layout_arguments=("encoder_attention_mask", "encoder_attention_mask_2"),
    ),
    Family(
        "CogView",
        ("transformer_cogview3plus.CogView3PlusTransformer2DModel", "transformer_cogview4.CogView4Transformer2DModel"),
        r"transformer_blocks\.\d+\.attn1",
        of.text_then_latent,
        keeps="left",
    ),
    Family(
        "Krea 2",
        ("transformer_krea2.Krea2Transformer2DModel",),
        _JOINT,
        of.krea2,
        layout_arguments=("position_ids",),
        suffix=True,
    ),
    Family(
        "Bria",
        ("transformer_bria.BriaTransformer2DModel", "transformer_bria_fibo.BriaFiboTransformer2DModel"),
        _BOTH,
        of.by_positions,
        layout_arguments=("img_ids",),
    ),
    Family(
        "Ovis-Image",
        ("transformer_ovis_image.OvisImageTransformer2DModel",),
        _BOTH,
        of.by_positions,
        layout_arguments=("img_ids",),
    ),
    Family(
        "LongCat-Image",
        ("transformer_longcat_image.LongCatImageTransformer2DModel",),
        _BOTH,
        of.by_positions,
        layout_arguments=("img_ids",),
        comfyui=_FLUX_IN_COMFYUI,
    ),
    Family("PRX", ("transformer_prx.PRXTransformer2DModel",), r"blocks\.\d+\.attention", of.prx),
    Family(
        "Kandinsky 5",
        ("transformer_kandinsky.Kandinsky5Transformer3DModel",),
        r"visual_transformer_blocks\.\d+\.cross_attention",
        of.kandinsky5,
        video=True,
    ),
    Family(
        "ERNIE-Image",
        ("transformer_ernie_image.ErnieImageTransformer2DModel",),
        r"layers\.\d+\.self_attention",
        of.ernie,
        text=("text_bth",),
    ),
    Family("GLM-Image", ("transformer_glm_image.GlmImageTransformer2DModel",), r"transformer_blocks\.\d+\.attn1", of.glm_image),
    Family("JoyImage", ("transformer_joyimage.JoyImageEditTransformer3DModel",), r"double_blocks\.\d+\.attn", of.joy_image),
    Family(
        "Wan",
        (
            "transformer_wan.WanTransformer3DModel",
            "transformer_wan_vace.WanVACETransformer3DModel",
            "transformer_skyreels_v2.SkyReelsV2Transformer3DModel",
            "transformer_chronoedit.ChronoEditTransformer3DModel",
        ),
        _WAN,
        of.wan,
        video=True,
        comfyui=ComfyUIModel(("wan.model.WanModel",), comfyui.wan),
    ),
    Family("Wan Animate", ("transformer_wan_animate.WanAnimateTransformer3DModel",), _WAN, of.wan_animate, video=True),
    Family("Helios", ("transformer_helios.HeliosTransformer3DModel",), _WAN, of.helios, video=True),
    Family("AnyFlow", ("transformer_anyflow.AnyFlowTransformer3DModel",), _WAN, of.frames_first, video=True),
    Family(
        "LTX-Video",
        ("transformer_ltx.LTXVideoTransformer3DModel",),
        _CROSS,
        of.ltx,
        layout_arguments=("video_coords",),
        video=True,
    ),
    Family("HunyuanVideo", ("transformer_hunyuan_video.HunyuanVideoTransformer3DModel",), _BOTH, of.hunyuan_video, video=True),
    Family(
        "HunyuanVideo 1.5",
        ("transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel",),
        _JOINT,
        of.hunyuan_video15,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        layout_arguments=("encoder_attention_mask", "encoder_attention_mask_2", "image_embeds"),
        video=True,
    ),
    Family(
        "CogVideoX",
        ("cogvideox_transformer_3d.CogVideoXTransformer3DModel", "consisid_transformer_3d.ConsisIDTransformer3DModel"),
        r"transformer_blocks\.\d+\.attn1",
        of.cog_video,
        video=True,
    ),
    Family(
        "Mochi",
        ("transformer_mochi.MochiTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn1",
        of.mochi,
        layout_arguments=("encoder_attention_mask",),
        video=True,
    ),
    Family("Allegro", ("transformer_allegro.AllegroTransformer3DModel",), _CROSS, of.latent_cross, video=True),
    Family(
        "Ideogram 4",
        ("transformer_ideogram4.Ideogram4Transformer2DModel",),
        r"layers\.\d+\.attention",
        of.ideogram4,
        layout_arguments=("position_ids", "indicator"),
        keeps="left",
        packed=True,
    ),
    Family("Latte", ("latte_transformer_3d.LatteTransformer3DModel",), _CROSS, of.latte, keeps="kept", video=True),
    Family(
        "Sana Video",
        ("transformer_sana_video.SanaVideoTransformer3DModel",),
        _CROSS,
        of.latent_cross,
        video=True,
        keeps="first and tail",
    ),
    Family(
        "Cosmos",
        ("transformer_cosmos.CosmosTransformer3DModel",),
        r"transformer_blocks\.\d+\.attn2",
        of.latent_cross,
        video=True,
    ),
)

REFUSED: Mapping[str, str] = {
    "dit_transformer_2d.DiTTransformer2DModel": "it is told a class by number, not a text",
    "transformer_hunyuan_video_framepack.HunyuanVideoFramepackTransformer3DModel": "frames of before stand among its tokens",
    "transformer_qwenimage21.QwenImage21Transformer2DModel": "its packed sequence is not known yet",
    "transformer_ltx2.LTX2VideoTransformer3DModel": "between encoder and model its text is mixed anew, column by column",
    "transformer_omnigen.OmniGenTransformer2DModel": "text and pictures are one sequence of tokens inside it",
    "transformer_anyflow_far.AnyFlowFARTransformer3DModel": "its frames attend in chunks",
}
"""Transformers of diffusers that are known and not read, each with the reason."""


READ_IN_COMFYUI = ", ".join(["Stable Diffusion 1, 2, XL", *(family.name for family in FAMILIES if family.comfyui is not None)])
"""What the nodes read, for sentences: UNets and these families."""


def comfyui_model_of(model: nn.Module) -> ComfyUIModel | None:
    """What is known of a diffusion model that ComfyUI built, None for one that is not known (or is a UNet)."""
    known = (family.comfyui for family in FAMILIES)
    return next((one for one in known if one is not None and one.built(model)), None)


def family_of(model: nn.Module) -> Family:
    """The family of a transformer of diffusers, wrapped by `torch.compile` or not.

    Raises:
        UnsupportedModel: none is known; the sentence names the class.
    """
    classes = type(getattr(model, "_orig_mod", model)).__mro__
    names = [f"{c.__module__}.{c.__name__}" for c in classes]
    for name in names:
        for family in FAMILIES:
            if name.removeprefix(_DIFFUSERS) in family.classes and name.startswith(_DIFFUSERS):
                return family
    for name in names:
        if reason := REFUSED.get(name.removeprefix(_DIFFUSERS)):
            raise UnsupportedModel(f"{classes[0].__name__} cannot be read: {reason}.")
    raise UnsupportedModel(
        f"{classes[0].__name__} is a model that DAAM Lens does not know. It reads "
        + ", ".join(family.name for family in FAMILIES)
        + "."
    )
