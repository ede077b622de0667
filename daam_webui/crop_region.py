"""Which part of the finished picture is sampled: a crop in inpaint "only masked", more than all of it before hires fix cuts."""

from __future__ import annotations

from typing import Any

from daam_core.capture.region import WHOLE, Area
from daam_core.errors import NothingRecorded

LARGEST_CANVAS = 40
"""How many times larger than the masked part a picture may be on each side, geometric mean: maps are kept for all of it."""
LATENT = 8
"""Pixels of a latent position."""


def area_of(p: Any, second: bool) -> Area:
    """The area of a pass.

    Args:
        p: the host's processing object.
        second: the second pass of hires fix.

    Raises:
        NothingRecorded: the picture is too large beside the part that is sampled.
    """
    box, overlays = getattr(p, "paste_to", None), getattr(p, "overlay_images", None)
    if box and overlays:
        return _pasted(box, overlays[0].size)
    cut = (getattr(p, "truncate_y", 0), getattr(p, "truncate_x", 0))
    if getattr(p, "enable_hr", False) and not second and any(cut):
        return _cut(cut, (p.hr_upscale_to_y, p.hr_upscale_to_x))
    return WHOLE


def _pasted(box: tuple[int, int, int, int], size: tuple[int, int]) -> Area:
    """Inpaint "only masked": the crop is pasted at `box` = (x, y, width, height) into a picture of `size` (width, height)."""
    x, y, width, height = box
    if size[0] * size[1] > LARGEST_CANVAS**2 * width * height:
        raise NothingRecorded("The masked part is too small beside its picture for heat maps of the whole; crop the picture.")
    return Area(y / size[1], x / size[0], height / size[1], width / size[0])


def _cut(positions: tuple[int, int], size: tuple[int, int]) -> Area:
    """Hires fix to another aspect: the enlarged first pass of `size` (height, width) loses latent positions on both sides, the
    odd one behind."""
    lost = [LATENT * n for n in positions]
    left = [side - n for side, n in zip(size, lost, strict=True)]
    first = [LATENT * (n // 2) for n in positions]
    return Area(-first[0] / left[0], -first[1] / left[1], size[0] / left[0], size[1] / left[1])
