"""A diffusion model that ComfyUI built, one call of it, and what a family says of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .token_layout import Patches, TokenLayout

UNET = ("comfy.ldm.modules.diffusionmodules.openaimodel", "UNetModel")


@dataclass(frozen=True)
class TextArgument:
    """One of the texts that a diffusion model is given, `[batch, columns, d]` (or with further axes ahead of the columns).

    Attributes:
        given: its name among what the model is called with.
        encoded: its name in a conditioning, as the text encoder gave it out.
        encoders: ComfyUI's names of encoders whose tokens its columns may be; without any, of all whose number fits.
        made_anew: whether the model makes of the encoded text another with a column for each token of the encoder.
        grows: whether the model makes of it another with further columns behind it.
    """

    given: str = "c_crossattn"
    encoded: str = "cross_attn"
    encoders: tuple[str, ...] = ()
    made_anew: bool = False
    grows: bool = False


CONTEXT = TextArgument()
"""The text that every model is given."""


@dataclass(frozen=True)
class ModelCall:
    """What a diffusion model is called with.

    Attributes:
        latent: its shape `[batch, c, (frames,) h, w]`.
        columns: of its text `[batch, columns, d]`, and of further texts of the family behind it.
        given: everything else by ComfyUI's names: "ref_latents", "clip_fea", "attention_mask", …
        more: how many of the columns are of each further text.
    """

    latent: tuple[int, ...]
    columns: int
    given: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[int, ...] = ()

    @property
    def batch(self) -> int:
        return self.latent[0]

    @property
    def main(self) -> int:
        """Columns of the text that every model is given."""
        return self.columns - sum(self.more)


@dataclass(frozen=True)
class ComfyUIModel:
    """The networks that ComfyUI builds for a family.

    Attributes:
        classes: `module.Class` of each behind `comfy.ldm.`; classes made from them belong to it, too.
        layout: gives the layout of one call.
        texts: the texts that it is given, in the order in which columns are counted.
        attention_module: the module behind `comfy.ldm.` whose attention is called without options, "" where there is none.
        packed: whether its latent may hold something else beside the picture or video.
    """

    classes: tuple[str, ...]
    layout: Callable[[Any, ModelCall], TokenLayout]
    texts: tuple[TextArgument, ...] = (CONTEXT,)
    attention_module: str = ""
    packed: bool = False

    def call(self, latent: Sequence[int], context: Tensor | None, given: Mapping[str, Any]) -> ModelCall:
        """A call with a latent of this shape, the text that every model is given, and everything else."""
        more = tuple(int(given[text.given].shape[-2]) for text in self.texts[1:] if given.get(text.given) is not None)
        main = 0 if context is None else int(context.shape[1])
        return ModelCall(tuple(latent), main + sum(more), given, more)


def is_unet(model: nn.Module) -> bool:
    """Whether a diffusion model is ComfyUI's own UNet: module and class, since other families use its class names."""
    return any((base.__module__, base.__name__) == UNET for base in _classes(model))


def patches_of(model: Any, latent: Sequence[int]) -> Patches:
    """Patches of a latent `[batch, c, (frames,) h, w]`; an edge that is no whole patch is padded."""
    return grid_of(latent, patch_of(model))


def grid_of(latent: Sequence[int], patch: Sequence[int]) -> Patches:
    """The same with patches of (frames, height, width) latent positions."""
    frames = latent[2] if len(latent) == 5 else 1
    t, h, w = (math.ceil(n / p) for n, p in zip((frames, *latent[-2:]), patch, strict=True))
    return t, h, w


def patch_of(model: Any) -> tuple[int, int, int]:
    """(frames, height, width) of a patch in latent positions."""
    size = getattr(model, "patch_size", None) or getattr(model, "patch", None) or 2
    if isinstance(size, int):
        return 1, size, size
    sizes = tuple(int(n) for n in size)
    return (1, *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def is_built_from(model: nn.Module, name: str) -> bool:
    """Whether a diffusion model is of the class `module.Class` behind `comfy.ldm.`, or of one that is made from it."""
    return name in class_names(model)


def class_names(model: nn.Module) -> list[str]:
    """`module.Class` of a model behind `comfy.ldm.`, and of the classes that it is made from, itself first."""
    names = [f"{base.__module__}.{base.__name__}" for base in _classes(model)]
    return [name.removeprefix("comfy.ldm.") for name in names if name.startswith("comfy.ldm.")]


def _classes(model: nn.Module) -> tuple[type, ...]:
    """The classes of a model, also of one that torch.compile has wrapped."""
    return type(getattr(model, "_orig_mod", model)).__mro__


def tokens_of(latent: Tensor | None, patch: Sequence[int]) -> int:
    """Patches of a latent `[batch, c, (frames,) h, w]`, 0 for none."""
    return 0 if latent is None else math.prod(grid_of(tuple(latent.shape), patch))


def padded(n: int, multiple: int) -> int:
    """`n` tokens and their padding to a multiple."""
    return math.ceil(n / multiple) * multiple
