"""The registry of transformers that are read: one entry a family, known by module and name of its classes."""

from __future__ import annotations

from torch import nn

from ..errors import UnsupportedModel
from . import cross_layouts as crossing
from . import picture_layouts as of
from .family import Family
from .refused_families import REFUSED, REFUSED_UNETS
from .video_families import VIDEO_FAMILIES

_DIFFUSERS = "diffusers.models.transformers."
_JOINT = r"transformer_blocks\.\d+\.attn"
_BOTH = r"(single_)?transformer_blocks\.\d+\.attn"
_CROSS = r"transformer_blocks\.\d+\.attn2"
_SELF = r"transformer_blocks\.\d+\.attn1"
_WAN = r"blocks\.\d+\.attn2"

FAMILIES: tuple[Family, ...] = (
    Family(
        "Flux.1",
        ("transformer_flux.FluxTransformer2DModel",),
        _BOTH,
        of.by_positions,
        tokenizers=("tokenizer_2",),
        layout_arguments=("img_ids",),
    ),
    Family(
        "Flux.2",
        ("transformer_flux2.Flux2Transformer2DModel",),
        _BOTH,
        of.flux2,
        layout_arguments=("img_ids",),
    ),
    Family(
        "Chroma",
        ("transformer_chroma.ChromaTransformer2DModel",),
        _BOTH,
        of.by_positions,
        layout_arguments=("img_ids",),
    ),
    Family(
        "Stable Diffusion 3",
        ("transformer_sd3.SD3Transformer2DModel",),
        _JOINT,
        of.sd3,
        tokenizers=("tokenizer", "tokenizer_3"),
        encoders=("CLIP", "T5"),
    ),
    Family(
        "Qwen-Image",
        ("transformer_qwenimage.QwenImageTransformer2DModel",),
        _JOINT,
        of.by_shapes,
        keeps="kept tail",
    ),
    Family(
        "Z-Image",
        ("transformer_z_image.ZImageTransformer2DModel",),
        r"layers\.\d+\.attention",
        of.z_image,
        text=("cap_feats",),
        keeps="kept",
    ),
    Family(
        "Lumina 2",
        ("transformer_lumina2.Lumina2Transformer2DModel",),
        r"layers\.\d+\.attn",
        of.lumina2,
        layout_arguments=("encoder_attention_mask",),
    ),
    Family("Lumina", ("lumina_nextdit2d.LuminaNextDiT2DModel",), r"layers\.\d+\.attn2", crossing.latent_cross),
    Family(
        "AuraFlow",
        ("auraflow_transformer_2d.AuraFlowTransformer2DModel",),
        r"(joint|single)_transformer_blocks\.\d+\.attn",
        of.aura_flow,
    ),
    Family(
        "HiDream",
        ("transformer_hidream_image.HiDreamImageTransformer2DModel",),
        r"(double|single)_stream_blocks\.\d+\.block\.attn1",
        of.hidream,
        text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
        tokenizers=("tokenizer_3", "tokenizer_4"),
        encoders=("T5", "Llama"),
    ),
    Family("PixArt", ("pixart_transformer_2d.PixArtTransformer2DModel",), _CROSS, crossing.latent_cross, picture_layers=_SELF),
    Family("Sana", ("sana_transformer.SanaTransformer2DModel",), _CROSS, crossing.latent_cross, keeps="first and tail"),
    Family(
        "HunyuanDiT",
        ("hunyuan_transformer_2d.HunyuanDiT2DModel",),
        _WAN,
        crossing.hunyuan_dit,
        text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        tokenizers=("tokenizer", "tokenizer_2"),
        encoders=("CLIP", "T5"),
    ),
    Family(
        "HunyuanImage 2.1",
        ("transformer_hunyuanimage.HunyuanImageTransformer2DModel",),
        _BOTH,
        of.hunyuan_image,
        text=("encoder_hidden_states", "encoder_hidden_states_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        encoders=("Qwen", "byT5"),
        quoted="tokenizer_2",
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
        pieces=512,
    ),
    Family(
        "OmniGen",
        ("transformer_omnigen.OmniGenTransformer2DModel",),
        r"layers\.\d+\.self_attn",
        of.omnigen,
        text=("input_ids",),
        keeps="left",
        token_ids=True,
    ),
    Family("PRX", ("transformer_prx.PRXTransformer2DModel",), r"blocks\.\d+\.attention", of.prx),
    Family(
        "ERNIE-Image",
        ("transformer_ernie_image.ErnieImageTransformer2DModel",),
        r"layers\.\d+\.self_attention",
        of.ernie,
        text=("text_bth",),
    ),
    Family(
        "GLM-Image",
        ("transformer_glm_image.GlmImageTransformer2DModel",),
        r"transformer_blocks\.\d+\.attn1",
        of.glm_image,
        quoted="tokenizer",
        quotes_apart=True,
    ),
    Family("JoyImage", ("transformer_joyimage.JoyImageEditTransformer3DModel",), r"double_blocks\.\d+\.attn", of.joy_image),
    Family(
        "Ideogram 4",
        ("transformer_ideogram4.Ideogram4Transformer2DModel",),
        r"layers\.\d+\.attention",
        of.ideogram4,
        layout_arguments=("position_ids", "indicator"),
        keeps="left",
        packed=True,
    ),
    Family(
        "Flux.3",
        ("transformer_flux3.Flux3Transformer2DModel",),
        r"single_transformer_blocks\.\d+\.attn",
        of.flux3,
        layout_arguments=("img_ids",),
    ),
    Family(
        "Qwen-Image 2.1",
        ("transformer_qwenimage21.QwenImage21Transformer2DModel",),
        _JOINT,
        of.qwen_image21,
        layout_arguments=("img_mask",),
        keeps="kept tail",
    ),
    Family("Nucleus-Image", ("transformer_nucleusmoe_image.NucleusMoEImageTransformer2DModel",), _JOINT, of.nucleus),
    Family(
        "JoyImage Plus",
        ("transformer_joyimage_edit_plus.JoyImageEditPlusTransformer3DModel",),
        r"double_blocks\.\d+\.attn",
        of.joy_image_plus,
    ),
    Family(
        "Bria Fibo 2",
        ("transformer_bria_fibo2.BriaFibo2Transformer2DModel",),
        r"layers\.\d+\.cross_attention",
        crossing.bria_fibo2,
        layout_arguments=("encoder_attention_mask",),
        columns_axis=1,
    ),
    *VIDEO_FAMILIES,
)


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
        if reason := REFUSED.get(name.removeprefix(_DIFFUSERS)) or REFUSED_UNETS.get(name.rpartition(".")[2]):
            raise UnsupportedModel(f"{classes[0].__name__} cannot be read: {reason}.")
    raise UnsupportedModel(
        f"{classes[0].__name__} is a model that DAAM Lens does not know. It reads "
        + ", ".join(family.name for family in FAMILIES)
        + "."
    )
