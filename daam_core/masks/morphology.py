"""Cleaning a mask: grow, shrink, feather, fill holes, drop small parts, invert. Lengths are pixels of the mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import BadArgument
from .validate import Picture, checked_masks, checked_positive, per_mask


def grow(mask: Tensor, radius: float) -> Tensor:
    """Every pixel within `radius` (Euclidean) of `mask`, bool `[..., h, w]`. Radius 0 changes nothing."""
    radius = checked_positive(radius, "radius", or_zero=True)
    return per_mask(checked_masks(mask), lambda one: _distance(1 - one) <= radius)


def shrink(mask: Tensor, radius: float) -> Tensor:
    """What is left of `mask` when its background grows by `radius`; the picture's border does not eat into it."""
    radius = checked_positive(radius, "radius", or_zero=True)
    return per_mask(checked_masks(mask), lambda one: _distance(one) > radius)


def feather(mask: Tensor, radius: float) -> Tensor:
    """`mask` with soft edges, float32 0..1 `[..., h, w]`.

    The value is 0.5 on the edge and rises linearly over `radius` pixels to 1 inside and falls to 0 outside.
    """
    radius = checked_positive(radius, "radius", or_zero=True)

    def ramp(one: Picture) -> npt.NDArray[np.generic]:
        # Distances run between pixel centres, the edge lies half a pixel before the other side's first centre.
        depth = np.where(one > 0, _distance(one) - 0.5, 0.5 - _distance(1 - one))
        return np.clip(0.5 + depth / (2 * max(radius, 1e-6)), 0.0, 1.0).astype(np.float32)

    return per_mask(checked_masks(mask), ramp)


def fill_holes(mask: Tensor, largest: int | None = None) -> Tensor:
    """`mask` with its holes filled, bool `[..., h, w]`.

    A hole is a 4-connected background region that does not touch the picture's border; with `largest` only holes of
    at most that many pixels.
    """

    def fill(one: Picture) -> npt.NDArray[np.generic]:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - one, connectivity=4)
        h, w = one.shape
        left, top, width, height, area = stats.T
        hole = (left > 0) & (top > 0) & (left + width < w) & (top + height < h)
        if largest is not None:
            hole &= area <= largest
        hole[0] = False  # label 0 is the mask itself
        filled: npt.NDArray[np.bool_] = (one > 0) | hole[labels]
        return filled

    return per_mask(checked_masks(mask), fill)


def drop_small(mask: Tensor, area: int) -> Tensor:
    """`mask` without its 8-connected parts of fewer than `area` pixels, bool `[..., h, w]`."""
    if area < 0:
        raise BadArgument(f"area must be at least zero pixels, got {area}.")

    def drop(one: Picture) -> npt.NDArray[np.generic]:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= area
        keep[0] = False
        kept: npt.NDArray[np.bool_] = keep[labels]
        return kept

    return per_mask(checked_masks(mask), drop)


def invert(mask: Tensor) -> Tensor:
    """The rest of the picture: `not` for bool, `1 - mask` for a soft mask of 0..1."""
    return ~mask if not mask.is_floating_point() else 1.0 - mask


def _distance(one: Picture) -> npt.NDArray[np.float32]:
    """Euclidean distance of each nonzero pixel to the nearest zero one; very far where there is none."""
    if one.all():
        return np.full(one.shape, np.float32(1e9))
    return cv2.distanceTransform(one, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32, copy=False)
