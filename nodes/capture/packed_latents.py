"""Latents that ComfyUI packs of several tensors (a video and its sound, a scene and its camera) and samples as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

Shapes = Sequence[Sequence[int]]
"""Of each packed tensor `[images, …]`, the picture's or video's first; one, or none, where nothing is packed."""


def is_packed(shapes: Shapes | None) -> bool:
    """Whether a latent of these shapes holds more than a picture or video."""
    return shapes is not None and len(shapes) > 1


def unpacked(latent: Tensor, shapes: Shapes | None) -> Tensor:
    """The picture or video `[rows, c, …, h, w]` of a latent that was packed to `[rows, 1, numbers]`; another as it is."""
    if shapes is None or not is_packed(shapes):
        return latent
    own = [int(n) for n in shapes[0][1:]]
    return latent[:, 0, : math.prod(own)].reshape(latent.shape[0], *own)


def picture_of(samples: Any) -> Tensor:
    """The picture or video of a LATENT's samples, which nodes hand on as several tensors where it has sound beside it."""
    nested = getattr(samples, "is_nested", False) and not isinstance(samples, Tensor)
    return samples.unbind()[0] if nested else samples
