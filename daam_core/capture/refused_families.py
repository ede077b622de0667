"""Transformers and UNets of diffusers that are known and not read, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SOUND = "it makes sound, not pictures"
_PART = "it is a part of UNets, which are read as a whole"

REFUSED: Mapping[str, str] = {
    "dit_transformer_2d.DiTTransformer2DModel": "it is told a class by number, not a text",
    "prior_transformer.PriorTransformer": "it makes the embedding of a picture, not a picture",
    "transformer_2d.Transformer2DModel": _PART,
    "transformer_temporal.TransformerTemporalModel": _PART,
    "transformer_2d_dreamlite.DreamLiteTransformer2DModel": _PART,
    "ace_step_transformer.AceStepTransformer1DModel": _SOUND,
    "minimax_music3_rvq_depth_decoder.MiniMaxMusic3RVQDepthDecoder": _SOUND,
    "transformer_minimax_music3.MiniMaxMusic3Transformer1DModel": _SOUND,
    "stable_audio_transformer.StableAudioDiTModel": _SOUND,
    "transformer_stable_audio3.StableAudio3DiTModel": _SOUND,
    "transformer_longcat_audio_dit.LongCatAudioDiTTransformer": _SOUND,
    "t5_film_transformer.T5FilmDecoder": _SOUND,
    "transformer_rfd4_proteina.RFD4ProteinaTransformer": "it makes proteins, not pictures",
    "transformer_kandinsky6_sr.Kandinsky6SRTransformer3DModel": "it enlarges a video and is given no text",
    "transformer_sana_wm_refiner.SanaWMLTX2RefinerTransformer3DModel": (
        "it refines a finished video a few frames at a time, and is not told which of the whole they are"
    ),
    "transformer_wan_animate_2.WanAnimate2Transformer3DModel": (
        "it makes its video in segments, and is not told which frames of the whole each of them is"
    ),
    "transformer_anyflow_far.AnyFlowFARTransformer3DModel": (
        "it makes its video chunk by chunk, and is not told how many frames the whole has; AnyFlow without FAR is read"
    ),
}
"""`module.Class` of each behind `diffusers.models.transformers.`, with the reason."""

REFUSED_UNETS: Mapping[str, str] = {
    "AudioLDM2UNet2DConditionModel": _SOUND,
    "DreamLiteUNetModel": (
        "it is given its latents and those of a picture to edit side by side as one, and norms its queries and keys behind "
        "their projections"
    ),
    "Kandinsky3UNet": "its attention stands in blocks of its own kind, which are not read",
    "UNetFlatConditionModel": "it makes a text and a picture of each other, which is not read",
    "UniDiffuserModel": "it makes text and picture together in one sequence, and has no prompt apart",
    "UVit2DModel": "it fills in tokens of a picture, and its attention stands in blocks of its own kind, which are not read",
    "WuerstchenPrior": "its attention has the picture among its keys beside the text, a layout that is not read",
    "UNetSpatioTemporalConditionModel": "it is given a picture instead of a prompt",
    "StableCascadeUNet": (
        "the decoder is given a summary of the text, without words; the prior is read: where a pipeline has both, "
        "`trace(pipe.prior_pipe)`"
    ),
}
"""Class of each, with the reason."""


_READ_AS = {"StableCascadeUNet": "prior"}
"""Classes of which one part of a pipeline is read."""


def class_names(pipe: Any) -> dict[str, str]:
    """Of a pipeline's parts by name, as they were before they were compiled."""
    return {name: type(getattr(part, "_orig_mod", part)).__name__ for name, part in getattr(pipe, "__dict__", {}).items()}


def refused_unet(classes: Mapping[str, str]) -> str:
    """Which of a pipeline's parts, by name and class, is a UNet that is not read, and why; empty where none is."""
    found = (one for part, one in classes.items() if one in REFUSED_UNETS and _READ_AS.get(one) != part)
    return next((f"of its {one}, {REFUSED_UNETS[one]}" for one in found), "")
