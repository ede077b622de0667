"""The registry of transformers that are read in ComfyUI, by the names that `families` has for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from . import comfyui_cross_layouts as crossing
from . import comfyui_layouts as joined
from . import comfyui_video_layouts as films
from .comfyui_model import ComfyUIModel, TextArgument, class_names

# ComfyUI builds several families from one class.
_FLUX = ComfyUIModel(("flux.model.Flux",), joined.with_references)
_NEXT_DIT = ComfyUIModel(("lumina.model.NextDiT",), joined.next_dit)
_HUNYUAN = ComfyUIModel(
    ("hunyuan_video.model.HunyuanVideo",),
    films.hunyuan,
    texts=(
        TextArgument(encoders=("llama", "qwen25_7b")),
        TextArgument("txt_byt5", "conditioning_byt5small", ("byt5",)),
    ),
)

COMFYUI_FAMILIES: Mapping[str, ComfyUIModel] = {
    "Flux.1": _FLUX,
    "Flux.2": _FLUX,
    "LongCat-Image": _FLUX,
    "Chroma": ComfyUIModel(("chroma.model.Chroma",), joined.with_references),
    "Stable Diffusion 3": ComfyUIModel(("modules.diffusionmodules.mmdit.MMDiT",), joined.text_first),
    "Qwen-Image": ComfyUIModel(("qwen_image.model.QwenImageTransformer2DModel",), joined.with_references),
    "Z-Image": _NEXT_DIT,
    "Lumina 2": _NEXT_DIT,
    "AuraFlow": ComfyUIModel(("aura.mmdit.MMDiT",), joined.auraflow),
    "Krea 2": ComfyUIModel(("krea2.model.SingleStreamDiT",), joined.krea2),
    "Ideogram 4": ComfyUIModel(("ideogram4.model.Ideogram4Transformer2DModel",), joined.picture_places),
    "Mage-Flow": ComfyUIModel(("mage_flow.model.MageFlowTransformer2DModel",), joined.picture_places),
    "HiDream": ComfyUIModel(
        ("hidream.model.HiDreamImageTransformer2DModel",),
        joined.hidream,
        texts=(
            TextArgument(encoders=("t5xxl",)),
            TextArgument("encoder_hidden_states_llama3", "conditioning_llama3", ("llama",)),
        ),
    ),
    "OmniGen2": ComfyUIModel(("omnigen.omnigen2.OmniGen2Transformer2DModel",), joined.omnigen2),
    "Boogu": ComfyUIModel(("boogu.model.BooguTransformer2DModel",), joined.omnigen2),
    "Lens": ComfyUIModel(("lens.model.LensTransformer2DModel",), joined.lens),
    "JoyImage": ComfyUIModel(("joyimage.model.JoyImageTransformer3DModel",), joined.picture_first),
    "ERNIE-Image": ComfyUIModel(("ernie.model.ErnieImageModel",), joined.picture_first, attention_module="ernie.model"),
    "PixArt": ComfyUIModel(("pixart.pixartms.PixArtMS",), crossing.pixart, attention_module="pixart.blocks"),
    "HunyuanDiT": ComfyUIModel(
        ("hydit.models.HunYuanDiT",),
        crossing.hunyuan_dit,
        texts=(
            TextArgument(encoders=("hydit_clip",)),
            TextArgument("encoder_hidden_states_t5", "conditioning_mt5xl", ("mt5xl",)),
        ),
        attention_module="hydit.attn_layers",
    ),
    "PixelDiT": ComfyUIModel(("pixeldit.model.PixDiT_T2I",), joined.pixeldit),
    "HunyuanVideo": _HUNYUAN,
    "HunyuanVideo 1.5": _HUNYUAN,
    "HunyuanImage 2.1": _HUNYUAN,
    "CogVideoX": ComfyUIModel(("cogvideo.model.CogVideoXTransformer3DModel",), films.cogvideox),
    "Mochi": ComfyUIModel(("genmo.joint_model.asymm_models_joint.AsymmDiTJoint",), films.mochi),
    "LTX-Video": ComfyUIModel(("lightricks.model.LTXVModel",), crossing.ltx),
    "LTX-2": ComfyUIModel(
        ("lightricks.av_model.LTXAVModel",), crossing.ltx_with_sound, texts=(TextArgument(grows=True),), packed=True
    ),
    "Kandinsky 5": ComfyUIModel(
        ("kandinsky5.model.Kandinsky5",), crossing.kandinsky5, texts=(TextArgument(encoders=("qwen25_7b",)),)
    ),
    # Speech to video hands its options to none of its attention in older versions of ComfyUI.
    "Wan": ComfyUIModel(("wan.model.WanModel",), crossing.wan, attention_module="wan.model"),
    "Cosmos": ComfyUIModel(("cosmos.model.GeneralDIT",), crossing.cosmos),
    "Cosmos Predict 2": ComfyUIModel(("cosmos.predict2.MiniTrainDIT",), crossing.cosmos),
    "Anima": ComfyUIModel(("anima.model.Anima",), crossing.cosmos, texts=(TextArgument(encoders=("t5xxl",), made_anew=True),)),
}
"""By the names that people call them; a class of ComfyUI may stand for several."""

READ_IN_COMFYUI = ", ".join(["Stable Diffusion 1, 2, XL", *COMFYUI_FAMILIES])
"""What the nodes read, for sentences: UNets and these families."""


REFUSED_IN_COMFYUI: Mapping[str, str] = {
    "hidream_o1.model.HiDreamO1Transformer": "its text and its picture are one text of a language model",
    "minimax.model.MiniMaxH3Model": "its text, video and sound are packed into one sequence",
    "cascade.stage_c.StageC": "its text stands beside pictures of several sizes, whose places are not known",
    "cascade.stage_b.StageB": "it is given the first stage's picture and a summary of the text",
    "seedvr.model.NaDiT": "it is given a picture, and a text that is not the prompt",
    "audio.dit.AudioDiffusionTransformer": "it makes sound",
    "ace.model.ACEStepTransformer2DModel": "it makes sound",
    "ace.ace_step15.AceStepConditionGenerationModel": "it makes sound",
    "hunyuan3d.model.Hunyuan3Dv2": "it makes solids",
    "hunyuan3dv2_1.hunyuandit.HunYuanDiTPlain": "it makes solids",
    "trellis2.model.Trellis2": "it makes solids",
    "triposplat.model.LatentSeqMMFlowModel": "it makes solids",
}
"""Networks of ComfyUI that are known and not read, each with the reason."""


def comfyui_model_of(model: nn.Module) -> ComfyUIModel | None:
    """What is known of a diffusion model that ComfyUI built, None for one that is not read (or is a UNet)."""
    known, _ = _nearest(model)
    return known


def comfyui_refusal(model: nn.Module) -> str:
    """Why a diffusion model that ComfyUI built is not read, as far as it is known; else empty."""
    _, reason = _nearest(model)
    return reason


def _nearest(model: nn.Module) -> tuple[ComfyUIModel | None, str]:
    """The same, of the first class that stands here: a class that is made from another may be another family, or refused."""
    for name in class_names(model):
        for known in COMFYUI_FAMILIES.values():
            if name in known.classes:
                return known, ""
        if name in REFUSED_IN_COMFYUI:
            return None, REFUSED_IN_COMFYUI[name]
    return None, ""
