"""Masks of a picture's words by Eq. 7, and how two of them overlap: what the studies of words measure."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import masks
from ..cli.argument_types import number_argument
from ..defaults import DEFAULT_TAU
from ..maps.heatmaps import HeatMaps
from ..masks import metrics as overlap
from ..opencv import cv2
from ..render.overlay import blend_heatmap, outline
from .study import Picture, Row

Labels = tuple[str, ...]


def add_tau_option(parser: argparse.ArgumentParser) -> None:
    """`--tau`, the threshold of the masks."""
    parser.add_argument(
        "--tau",
        type=number_argument(0, 1),
        default=DEFAULT_TAU,
        help="threshold of the masks, Eq. 7 (default: %(default)s)",
    )


def heat(maps: HeatMaps, words: Sequence[Labels]) -> Tensor:
    """float32 `[words, H, W]` at the picture's size: a word's map, or the sum of those of its parts."""
    if not words:
        return torch.zeros(0, *maps.size)
    flat = list(dict.fromkeys(label for labels in words for label in labels))
    stack = maps.heat_maps(flat, maps.size)
    return torch.stack([stack[[flat.index(label) for label in labels]].sum(0) for labels in words])


def word_masks(maps: HeatMaps, words: Sequence[Labels], tau: float) -> Tensor:
    """Eq. 7: bool `[words, H, W]`; an empty mask where a word has no heat at all."""
    return masks.threshold(heat(maps, words), tau) if words else torch.zeros(0, *maps.size, dtype=torch.bool)


def overlaps(dependent: Tensor, head: Tensor) -> Row:
    """IoD, IoH and IoU of two bool masks `[H, W]` and their areas; None where a mask that is divided by is empty."""
    return {
        "iod": number(overlap.iod(dependent, head)),
        "ioh": number(overlap.ioh(dependent, head)),
        "iou": number(overlap.iou(dependent, head)),
        "dependent_area": number(dependent.float().mean()),
        "head_area": number(head.float().mean()),
    }


def number(value: Tensor | float) -> float | None:
    """Six digits, which a mask can tell and every machine agrees on; None for NaN."""
    found = float(value)
    return None if math.isnan(found) else round(found, 6)


def panels(image: Picture, heats: Sequence[Tensor], shown: Sequence[Tensor]) -> Picture:
    """The picture, then it again under each heat with the outline of each mask: uint8 `[H, (1 + words) W, 3]`."""
    parts = [image]
    for one, mask in zip(heats, shown, strict=True):
        under = blend_heatmap(image, one)
        parts.append(outline(under, mask.float()) if bool(mask.any()) else under)
    return np.concatenate(parts, axis=1)


def shrunk(image: Picture, side: int) -> Picture:
    """The picture with a longer side of at most `side` pixels."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def pixels(path: object) -> Picture:
    """A kept picture, uint8 `[H, W, 3]`."""
    with Image.open(str(path)) as file:
        return np.asarray(file.convert("RGB"))
