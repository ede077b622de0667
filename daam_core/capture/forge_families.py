"""The registry of transformers that are read in Forge and its kin, by the names that `families` has for them.

Their networks are ComfyUI's under other names, and stand in other modules: text and picture are in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import comfyui_cross_layouts as crossing
from . import comfyui_layouts as joined
from .comfyui_model import ModelCall, grid_of, tokens_of
from .token_layout import TokenLayout, cross

ROOM = "backend.nn."
ATTENTION = "attention_function"
"""The name by which each module of the hosts calls its attention."""


@dataclass(frozen=True)
class ForgeModel:
    """The networks that Forge and its kin build for a family.

    Attributes:
        classes: `module.Class` of each behind `backend.nn.`.
        layout: gives the layout of one call.
        attention_module: the module behind `backend.nn.` whose attention it calls.
        engine: the attribute of a loaded checkpoint that is the text encoder whose tokens its columns are.
        references: whether it also attends to the reference pictures that the host keeps for all its models.
    """

    classes: tuple[str, ...]
    layout: Callable[[Any, ModelCall], TokenLayout]
    attention_module: str
    engine: str
    references: bool = False


def anima(model: Any, call: ModelCall) -> TokenLayout:
    """Anima: in each block, the picture to itself and then to the text; references are further frames behind it."""
    space, time = int(model.patch_spatial), int(model.patch_temporal)
    patch = (time, space, space)
    patches = grid_of(call.latent, patch)
    behind = sum(tokens_of(one, patch) for one in call.given.get("ref_latents") or ())
    n = math.prod(patches) + behind
    layout = cross(call.batch, patches, call.columns, queries=n).and_without_text((n, n))
    return crossing.with_blocks(layout, len(model.blocks))


def krea2(model: Any, call: ModelCall) -> TokenLayout:
    """Krea 2: text, picture, references; here all that it is given are numbered."""
    given = {"ref_latents_method": "index", **call.given}
    return joined.krea2(model, ModelCall(call.latent, call.columns, given, call.more))


_FLUX = "flux.IntegratedFluxTransformer2DModel"

FORGE_FAMILIES: Mapping[str, ForgeModel] = {
    "Flux.1": ForgeModel((_FLUX,), joined.with_references, "flux", "text_processing_engine_t5", references=True),
    "Flux.2": ForgeModel((_FLUX,), joined.with_references, "flux", "text_processing_engine_gemma", references=True),
    "Chroma": ForgeModel(
        ("chroma.IntegratedChromaTransformer2DModel",), joined.text_first, "flux", "text_processing_engine_t5"
    ),
    "Lumina 2": ForgeModel(("lumina.NextDiT",), joined.padded_next_dit, "lumina", "text_processing_engine_gemma"),
    "Z-Image": ForgeModel(("lumina.NextDiT",), joined.padded_next_dit, "lumina", "text_processing_engine_gemma"),
    "Qwen-Image": ForgeModel(
        ("qwen.QwenImageTransformer2DModel",), joined.with_references, "qwen", "text_processing_engine_qwen", references=True
    ),
    "Anima": ForgeModel(("anima.Anima",), anima, "anima", "text_processing_engine_anima", references=True),
    "ERNIE-Image": ForgeModel(("ernie.ErnieImageModel",), joined.picture_first, "ernie", "text_processing_engine_ministral"),
    "Krea 2": ForgeModel(("krea.SingleStreamDiT",), krea2, "krea", "text_processing_engine_qwen"),
    "Wan": ForgeModel(("wan.WanModel",), crossing.wan, "wan", "text_processing_engine_t5"),
}
"""By the names that people call them; a class may stand for several, which the text encoder tells apart."""

READ_IN_FORGE = ", ".join(["Stable Diffusion 1, 2, XL", *FORGE_FAMILIES])
"""What the extension reads in Forge Neo, for sentences."""


def forge_model_of(model: nn.Module, checkpoint: Any) -> tuple[str, ForgeModel] | None:
    """(family, what is known of it) of a diffusion model that one of the hosts built; None for one that is not read.

    Args:
        model: the diffusion model. Its own class counts: one that is made from it may be another family.
        checkpoint: what the host loaded it with, which has the text encoders.
    """
    kind = type(getattr(model, "_orig_mod", model))
    name = f"{kind.__module__}.{kind.__name__}"
    for family, known in FORGE_FAMILIES.items():
        if name in {ROOM + one for one in known.classes} and getattr(checkpoint, known.engine, None) is not None:
            return family, known
    return None


def is_forge_transformer(model: nn.Module) -> bool:
    """Whether a diffusion model is one of the hosts' own that is no UNet."""
    kind = type(getattr(model, "_orig_mod", model))
    return kind.__module__.startswith(ROOM) and kind.__module__ != ROOM + "unet"
