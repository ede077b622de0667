"""Where text and picture stand in the attention of models without a UNet (diffusion transformers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..types import Grid

JOINT = ("MMDiT", "Flux", "Chroma", "QwenImageTransformer2DModel", "NextDiT")
"""Text and picture attend to each other in one attention, text first: SD3, Flux, Chroma, Qwen-Image, Lumina 2, Z-Image."""
CROSS = ("WanModel",)
"""The picture attends to the text in an attention of its own, after the one to itself: Wan."""


UNET = ("comfy.ldm.modules.diffusionmodules.openaimodel", "UNetModel")
READS = "Stable Diffusion 1, 2, XL and 3, Flux, Chroma, Qwen-Image, Lumina 2, Z-Image and Wan"


@dataclass(frozen=True)
class Layout:
    """What is known of a transformer.

    Attributes:
        joint: whether text and picture share one attention.
        patch: (frames, height, width) of a patch in latent positions.
        multiple: text is padded to a multiple of so many columns.
        refiners: how many attentions of text or picture alone come first.
    """

    joint: bool
    patch: tuple[int, int, int]
    multiple: int
    refiners: int

    def grid(self, latent: tuple[int, ...]) -> tuple[int, Grid]:
        """(frames, (h, w)) of a latent `[batch, c, (frames,) h, w]` in patches."""
        frames = latent[2] if len(latent) == 5 else 1
        t, h, w = (math.ceil(n / p) for n, p in zip((frames, *latent[-2:]), self.patch, strict=True))
        return t, (h, w)

    def text(self, context: int, keys: int, picture: int) -> tuple[int, int]:
        """(text columns, first column of the picture) of a joint attention with `keys` keys.

        `context` is the length of the text that the model was given, `picture` the number of patches. Lumina leaves out
        the text's padding; Z-Image pads the text; reference pictures follow the picture.
        """
        padded = math.ceil(context / self.multiple) * self.multiple
        first = padded if keys >= padded + picture else keys - picture
        return min(context, first), first


def layout_of(model: nn.Module) -> Layout | None:
    """The layout of a diffusion model, None for one that is not known (or is a UNet)."""
    names = {base.__name__ for base in _classes(model)}
    if not names & {*JOINT, *CROSS}:
        return None
    multiple = int(getattr(model, "pad_tokens_multiple", None) or 1)
    refiners = sum(len(getattr(model, name, None) or ()) for name in ("context_refiner", "noise_refiner"))
    return Layout(bool(names & set(JOINT)), _patch(model), multiple, refiners)


def is_unet(model: nn.Module) -> bool:
    """Whether a diffusion model is ComfyUI's own UNet: module and class, since other families use its class names."""
    return any((base.__module__, base.__name__) == UNET for base in _classes(model))


def _classes(model: nn.Module) -> tuple[type, ...]:
    """The classes of a model, also of one that torch.compile has wrapped."""
    return type(getattr(model, "_orig_mod", model)).__mro__


def _patch(model: Any) -> tuple[int, int, int]:
    size = getattr(model, "patch_size", None) or 2
    if isinstance(size, int):
        return 1, size, size
    sizes = tuple(int(n) for n in size)
    return (1, *sizes) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])
