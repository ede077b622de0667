"""Label maps: one number a pixel, from the masks of labels; as a PNG with a palette, and as objects in COCO's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..files import png_bytes
from ..maps.heatmaps import HeatMaps
from ..masks.threshold import stretched
from .coco_outlines import packed_runs, runs_of
from .study import Row

Labels = NDArray[np.uint8]


def label_map(maps: HeatMaps, numbers: Mapping[str, int], method: str, tau: float) -> Labels:
    """The number of the label at each place, 0 where no mask is: uint8 `[H, W]`.

    Where masks of several labels meet, the label whose map, stretched to 0..1, is hotter there has the place.

    Args:
        maps: of a picture; the labels are words of its prompt.
        numbers: of each label, 1..254.
        method, tau: how a heat map becomes a mask.
    """
    found = np.zeros(maps.size, np.uint8)
    best = torch.full(maps.size, -1.0)
    for label, number in numbers.items():
        mask = maps.mask(label, method, tau=tau)
        heat = stretched(maps.heat_map(label, maps.size)[None])[0]
        wins = mask & (heat > best)
        found[wins.numpy()] = number
        best = torch.where(wins, heat, best)
    return found


def palette_png(labels: Labels) -> bytes:
    """A label map as a PNG file with PASCAL VOC's palette."""
    return png_bytes(labels, palette=palette())


def palette() -> list[int]:
    """256 colours, red, green and blue each: the bits of a number, every third one to a colour, the lowest to its highest."""
    colours = []
    for number in range(256):
        for channel in range(3):
            bits = [number >> (3 * i + channel) & 1 for i in range(8)]
            colours.append(sum(bit << (7 - i) for i, bit in enumerate(bits)))
    return colours


def objects_of(labels: Labels, names: Sequence[str], numbers: Mapping[str, int]) -> list[Row]:
    """One row a label that has a place: its number, area, box (x, y, width, height) and COCO's packed runs."""
    rows: list[Row] = []
    for name in names:
        mask = labels == numbers[name]
        if not mask.any():
            continue
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1))
        rows.append(
            {
                "label": name, "number": numbers[name], "area": int(mask.sum()), "x": box[0], "y": box[1], "width": box[2],
                "height": box[3], "runs": packed_runs(runs_of(mask)),
            }
        )  # fmt: skip
    return rows
