"""The ways from what is known of a word to its mask, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .. import masks
from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DetailMissing

Size = tuple[int, int]


@dataclass(frozen=True)
class MaskInputs:
    """What is known of a word and the words it may have to share the picture with; the word itself is first.

    Attributes:
        levels: float32 `[words, h, w]` for each recorded resolution, Eq. 6 before upscaling.
        time_weighted: float32 `[words, h, w]` at native size, step j weighted by j squared: late steps place an object better.
        self_attention: grid (h, w) and float32 `[n, n]` (query, key), where recorded.
        picture: uint8 `[H, W, 3]`, where known.
        size: (height, width) of the mask.
    """

    levels: Sequence[Tensor]
    time_weighted: Tensor
    self_attention: tuple[Size, Tensor] | None
    picture: NDArray[np.uint8] | None
    size: Size

    @cached_property
    def maps(self) -> Tensor:
        """float32 `[words, H, W]`, Eq. 6 at the size of the mask; upscaled only for the methods that look at it."""
        return bicubic(self.levels, self.size)


def make_mask(inputs: MaskInputs, method: str = "best", tau: float = DEFAULT_TAU) -> Tensor:
    """The mask of the first word: bool `[H, W]`.

    Raises:
        BadArgument: an unknown method (the text lists those that are), or tau outside 0..1.
        DetailMissing: the method needs the picture or self-attention, and the recording has none.
    """
    if method not in METHODS:
        raise BadArgument(f"There is no mask method {method!r}; there are {', '.join(METHODS)}.")
    return METHODS[method](inputs, tau)


def _threshold(e: MaskInputs, tau: float) -> Tensor:
    return masks.threshold(e.maps[0], tau)


def _otsu(e: MaskInputs, tau: float) -> Tensor:
    return masks.otsu(e.maps[0])


def _compete(e: MaskInputs, tau: float) -> Tensor:
    return masks.compete(e.maps, tau)[0]


def _walk(e: MaskInputs, tau: float) -> Tensor:
    if e.self_attention is None:
        raise DetailMissing("Self-attention was not recorded. Record with `trace(pipe, self_attention=True)`.")
    heat = masks.walk(_pooled(e.time_weighted, e.self_attention[0]), e.self_attention[1])
    return masks.compete(masks.resized(heat, e.size), tau)[0]


def _guided(e: MaskInputs, tau: float) -> Tensor:
    return masks.compete(masks.snap_guided(masks.minmax(e.maps), _picture(e)), tau)[0]


def _grabcut(e: MaskInputs, tau: float) -> Tensor:
    return masks.snap_grabcut(e.maps[:1], _picture(e), where=masks.compete(e.maps, tau)[:1])[0]


def _best(e: MaskInputs, tau: float) -> Tensor:
    late, walk = e.time_weighted, None
    if e.self_attention is not None:
        grid, walk = e.self_attention
        late = _pooled(late, grid)
    return masks.best(late, 0, picture=e.picture, self_attention=walk, size=e.size)


METHODS: dict[str, Callable[[MaskInputs, float], Tensor]] = {
    "best": _best,
    "threshold": _threshold,
    "otsu": _otsu,
    "compete": _compete,
    "walk": _walk,
    "guided": _guided,
    "grabcut": _grabcut,
}
"""best: the product's default (`masks.best`); threshold: Eq. 7; otsu: Otsu's level; compete: the hottest of the competing
words, from tau on; walk: compete after one step along self-attention; guided, grabcut: compete, snapped to the picture's
edges."""


def _pooled(maps: Tensor, grid: Size) -> Tensor:
    """Native maps `[words, h, w]` brought to the grid of the self-attention by area averaging."""
    return maps if maps.shape[-2:] == grid else F.adaptive_avg_pool2d(maps, grid)


def _picture(e: MaskInputs) -> NDArray[np.uint8]:
    if e.picture is None:
        raise DetailMissing("This method snaps to the picture, and the recording has none: give `image=`.")
    return e.picture
