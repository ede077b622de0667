"""Masks that know nothing of attention, and those of castorini/daam: what a word's mask has to beat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ..maps.heatmaps import HeatMaps
from ..masks import minmax, threshold

Size = tuple[int, int]
TAUS = tuple(round(0.1 * n, 1) for n in range(1, 10))
WHOLE, RANDOM, BOX, SEGMENTER = "whole image", "random", "centre box", "segmenter"


def whole_image(size: Size) -> Tensor:
    """Everything: the paper's own baseline. bool `[H, W]`."""
    return torch.ones(size, dtype=torch.bool)


def random_pixels(size: Size, name: str) -> Tensor:
    """Each pixel by the toss of a coin, the same for the same `name`: bool `[H, W]`."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.5


def centre_box(size: Size) -> Tensor:
    """The box in the middle that is half as high and half as wide as the picture: bool `[H, W]`."""
    mask = torch.zeros(size, dtype=torch.bool)
    height, width = size
    mask[height // 4 : height // 4 + max(1, height // 2), width // 4 : width // 4 + max(1, width // 2)] = True
    return mask


def blind(size: Size, name: str) -> dict[str, Tensor]:
    """All that look at nothing, by name."""
    return {WHOLE: whole_image(size), RANDOM: random_pixels(size, name), BOX: centre_box(size)}


def paper_masks(maps: HeatMaps, word: str, size: Size) -> Mapping[float, Tensor]:
    """Eq. 7, `D >= tau * max D`, by tau 0.1 to 0.9."""
    heat = maps.heat_map(word, size)
    return {tau: threshold(heat, tau) for tau in TAUS}


def castorini_masks(maps: HeatMaps, word: str, size: Size) -> Mapping[float, Tensor]:
    """The castorini package's hard mask by tau: its map stretched to 0..1, then `>`."""
    heat = minmax(maps.heat_map(word, size))
    return {tau: heat > tau for tau in TAUS}
