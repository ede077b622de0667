"""Outlines of objects in COCO's form: polygons, or lengths of runs in columns; checked before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadArgument
from ..types import Size

MOST_NUMBERS = 2**20
"""Numbers of one outline."""
Mask = NDArray[np.bool_]


def mask_of(outline: Any, size: Size) -> Mask:
    """The mask of an outline: polygons `[[x, y, x, y, …], …]`, or `{"size": [h, w], "counts": runs}`, runs as a list or packed.

    Polygons are filled by pycocotools, by COCO's own rule; runs are laid here, since its code trusts their sum.

    Returns:
        bool `[H, W]` of `size`.

    Raises:
        BadArgument: anything else; runs that do not add up to the picture; numbers far outside it.
    """
    if isinstance(outline, list):
        return _filled(outline, size)
    if not isinstance(outline, dict) or outline.get("size") != list(size):
        raise BadArgument("the outline is neither a list of polygons nor runs of the picture's size")
    counts = outline.get("counts")
    return _laid(_unpacked(counts) if isinstance(counts, str) else counts, size)


def runs_of(mask: Mask) -> list[int]:
    """Lengths of a mask's runs, column by column, beginning with zeros: COCO's plain `counts`."""
    flat = np.concatenate([[False], mask.T.flatten()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = [0, *(int(i) for i in changes), mask.size]
    return [b - a for a, b in pairwise(ends)]


def packed_runs(runs: Sequence[int]) -> str:
    """Runs as COCO packs them, the inverse of `_unpacked`."""
    signs: list[str] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            signs.append(chr(48 + (code | 32 if more else code)))
    return "".join(signs)


def _laid(runs: Any, size: Size) -> Mask:
    good = isinstance(runs, list) and 0 < len(runs) <= MOST_NUMBERS and all(type(n) is int and n >= 0 for n in runs)
    if not good or sum(runs) != size[0] * size[1]:
        raise BadArgument("the outline's runs do not add up to the picture")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)


def _unpacked(text: str) -> list[int]:
    """COCO's packed runs: signs from 48 on hold five bits each, the sixth says that more follow, the fifth of the last is the
    sign; from the fourth number on, each is the difference to that two before it."""
    numbers: list[int] = []
    value = shift = 0
    if len(text) > MOST_NUMBERS:
        raise BadArgument("the outline has too many runs")
    for sign in text:
        code = ord(sign) - 48
        if not 0 <= code < 64 or shift > 60:
            raise BadArgument("the outline's packed runs are damaged")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    if shift:
        raise BadArgument("the outline's packed runs are cut off")
    return numbers


def _filled(polygons: Sequence[Any], size: Size) -> Mask:
    from pycocotools import mask as coco

    far = 2 * max(size)
    numbers = sum(len(polygon) for polygon in polygons if isinstance(polygon, list))
    if not polygons or numbers > MOST_NUMBERS:
        raise BadArgument("the outline is no list of polygons")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise BadArgument("a polygon of the outline is no list of at least three points")
        if not all(type(n) in (int, float) and math.isfinite(n) and -far <= n <= far for n in polygon):
            raise BadArgument("a polygon of the outline has a point that is no number, or far outside the picture")
    packed = coco.merge(coco.frPyObjects([[float(n) for n in polygon] for polygon in polygons], size[0], size[1]))
    return np.asarray(coco.decode(packed)).astype(bool)
