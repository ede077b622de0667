"""Cleaning a mask: grow, shrink, feather, fill holes, drop small parts, invert. Lengths are pixels of the mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import BadArgument
from ..opencv import cv2
from ..types import Size
from ..validate import checked_switch
from .validate import Picture, checked_masks, checked_number, checked_positive, checked_size, checked_whole, per_mask

_LONGEST = 65_536.0  # pixels; no picture has a longer side


@dataclass(frozen=True)
class Cleanup:
    """What is done to a mask at the end, the same in every host: applied in the order of the attributes.

    Attributes:
        fill: fill holes.
        smallest: parts smaller than this many per cent of the picture are dropped, 0..100.
        grow: pixels; negative shrinks.
        invert: the rest of the picture instead.
        feather: soft edges over so many pixels.

    Raises:
        BadArgument: a value outside its range.

    Example:
        >>> import torch
        >>> mask = torch.zeros(10, 10, dtype=torch.bool)
        >>> mask[0, 0], mask[4:8, 4:8] = True, True
        >>> int(Cleanup(smallest=2.0).apply(mask).sum()), int(Cleanup(smallest=2.0, grow=1.0).apply(mask).sum())
        (16, 32)
    """

    fill: bool = False
    smallest: float = 0.0
    grow: float = 0.0
    invert: bool = False
    feather: float = 0.0

    def __post_init__(self) -> None:
        checked_switch(self.fill, "fill")
        checked_switch(self.invert, "invert")
        checked_number(self.smallest, "smallest", 0, 100)
        checked_number(self.grow, "grow", -_LONGEST, _LONGEST)
        checked_number(self.feather, "feather", 0, _LONGEST)

    @property
    def changes_shape(self) -> bool:
        """Whether more than the inversion is asked for."""
        return bool(self.fill or self.smallest or self.grow or self.feather)

    def apply(self, mask: Tensor) -> Tensor:
        """The cleaned mask: bool `[..., H, W]`, float32 0..1 where it is feathered.

        A soft mask (float 0..1) stays soft as long as its shape does not change; else its half level counts.
        """
        if isinstance(mask, Tensor) and mask.is_floating_point():
            if not self.changes_shape:
                return invert(mask) if self.invert else mask
            mask = mask >= 0.5
        mask = checked_masks(mask)
        if self.fill:
            mask = fill_holes(mask)
        if self.smallest:
            # Up to a whole pixel: a part of exactly this share of the picture stays.
            mask = drop_small(mask, math.ceil(self.smallest / 100 * mask.shape[-1] * mask.shape[-2] - 1e-6))
        if self.grow:
            mask = grow(mask, self.grow) if self.grow > 0 else shrink(mask, -self.grow)
        if self.invert:
            mask = invert(mask)
        return feather(mask, self.feather) if self.feather else mask


def per_cent(pixels: float, size: Size) -> float:
    """`pixels` as per cent of a picture of `size` = (height, width), at most 100; for :class:`Cleanup`."""
    size = checked_size(size)
    return min(100.0, 100 * checked_positive(pixels, "pixels", or_zero=True) / (size[0] * size[1]))


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

    if largest is not None:
        checked_whole(largest, "largest", 0)

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
    area = checked_whole(area, "area", 0)

    def drop(one: Picture) -> npt.NDArray[np.generic]:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= area
        keep[0] = False
        kept: npt.NDArray[np.bool_] = keep[labels]
        return kept

    return per_mask(checked_masks(mask), drop)


def invert(mask: Tensor) -> Tensor:
    """The rest of the picture: `not` for bool, `1 - mask` for a soft mask of 0..1."""
    if not isinstance(mask, Tensor) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise BadArgument("mask must be a tensor, bool or soft (float 0..1).")
    return 1.0 - mask if mask.is_floating_point() else ~mask


def _distance(one: Picture) -> npt.NDArray[np.float32]:
    """Euclidean distance of each nonzero pixel to the nearest zero one; very far where there is none."""
    if one.all():
        return np.full(one.shape, np.float32(1e9))
    return cv2.distanceTransform(one, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32, copy=False)
