"""Bicubic upscaling of many small maps to one size: the last step of Eq. 6, after everything linear was summed.

Bicubic interpolation is linear and separable, so a sum of upscaled levels is `sum_l V_l @ F_l @ U_l`: every level is
stretched to the full width first (small), then all levels are stretched downwards together. An output row looks at four
rows of each level only; a band of output rows is therefore one small matrix product over the few rows it needs, and
the large output is written exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument
from .precision import full_precision

BAND = 128
"""Output rows written by one matrix product: small enough that few input rows are needed, large enough to be quick."""


@torch.no_grad()
def bicubic(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The sum of all levels, each upscaled to one size.

    Args:
        levels: one or more maps of `[tokens, h, w]`, any floating dtype and any grid; the same tokens on one device.
        size: `(height, width)` of the result, any positive sizes, smaller than the levels too.

    Returns:
        float32 `[tokens, height, width]` on the levels' device, equal to the sum of
        `F.interpolate(level, size, mode="bicubic", align_corners=False)` up to rounding (1e-6 of the maximum).
        Values may lie a little below zero beside sharp edges, as bicubic values do.

    Raises:
        BadArgument: no level, a level of another shape, or a size below one pixel.
    """
    _check(levels, size)
    with full_precision(levels[0].device):
        exact = [level.float() for level in levels]
        if _worth_splitting(exact, size):
            return _in_bands(exact, size)
        return _level_by_level(exact, size)


def _check(levels: Sequence[Tensor], size: tuple[int, int]) -> None:
    shapes = [tuple(level.shape) for level in levels]
    same_tokens = len({shape[:1] for shape in shapes}) == 1
    if not same_tokens or any(len(shape) != 3 or shape[1] * shape[2] == 0 for shape in shapes):
        raise BadArgument(f"Upscaling takes maps of [tokens, h, w] with equal tokens, but got shapes {shapes}.")
    if len(size) != 2 or min(size) < 1:
        raise BadArgument(f"A map cannot be {tuple(size)} large; give (height, width) in pixels, both at least 1.")


def _worth_splitting(levels: Sequence[Tensor], size: tuple[int, int]) -> bool:
    """Whether matrix products pay off: on the CPU and when something really grows.

    Elsewhere F.interpolate is quick, and free of TF32. A map with NaN or infinity also goes there: in a matrix product
    one bad cell would spoil its whole row (0 * NaN), and not only its neighbours.
    """
    return (
        levels[0].device.type == "cpu"
        and levels[0].shape[0] > 0
        and size[0] * size[1] > max(level.shape[1] * level.shape[2] for level in levels)
        and all(bool(level.isfinite().all()) for level in levels)
    )


def _level_by_level(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The definition itself, with one sum in place."""
    total = torch.zeros(levels[0].shape[0], *size, device=levels[0].device)
    if total.shape[0]:
        for level in levels:
            total += F.interpolate(level[None], size=size, mode="bicubic", align_corners=False)[0]
    return total


def _in_bands(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    height, width = size
    tokens = levels[0].shape[0]
    wide = [level @ _weights(level.shape[2], width) for level in levels]  # [tokens, h, width] each
    downwards = [_weights(level.shape[1], height).T for level in levels]  # [height, h] each

    # NumPy asks Linux for huge pages, PyTorch does not: without them, a third of the time would go into page faults.
    total = torch.from_numpy(np.empty((tokens, height, width), dtype=np.float32))
    for top in range(0, height, BAND):
        rows = slice(top, min(top + BAND, height))
        used = [_used_columns(weights[rows]) for weights in downwards]
        band_weights = torch.cat([weights[rows, span] for weights, span in zip(downwards, used, strict=True)], 1)
        band_source = torch.cat([level[:, span] for level, span in zip(wide, used, strict=True)], 1)
        torch.bmm(band_weights.expand(tokens, -1, -1), band_source, out=total[:, rows])
    return total


def _weights(source: int, target: int) -> Tensor:
    """`[source, target]`: how much each of `source` pixels in a line gives to each of `target` pixels.

    F.interpolate itself stretches the unit vectors, so that its rounding of coordinates and its borders are ours.
    """
    units = torch.eye(source)[None, None]
    return F.interpolate(units, size=(source, target), mode="bicubic", align_corners=False)[0, 0]


def _used_columns(weights: Tensor) -> slice:
    """The span of columns that hold anything but zeros."""
    columns = (weights != 0).any(0).nonzero()
    return slice(int(columns[0]), int(columns[-1]) + 1)
