"""The parts of Eq. 6, each left out or done otherwise: heat maps of one word by family and variant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..maps.heatmaps import HeatMaps
from ..masks import minmax
from ..types import Size

FAMILIES = ("all", "resolution", "block", "layer", "steps", "head", "interpolation", "aggregation")
QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
MOST_LAYERS = 40
"""Single layers are compared where there are no more than this, blocks alone where there are more."""
Mode = Literal["nearest", "bilinear", "bicubic", "area"]


def variants(maps: HeatMaps, castorini: HeatMaps | None, word: str, size: Size) -> Iterator[tuple[str, str, Tensor]]:
    """Family, variant and heat map float32 `[H, W]`, for every variant that this recording has.

    Args:
        maps: recorded with layers, steps and heads apart.
        castorini: the same picture by that package's rule, of UNets alone; None of a transformer.

    Raises:
        WordNotFound, DetailMissing.
    """
    yield "all", "Eq. 6", maps.heat_map(word, size)
    for grid in sorted(maps.sums):
        yield "resolution", f"{grid[0]} x {grid[1]}", maps.select(grids=[grid]).heat_map(word, size)
    for block in ("down", "mid", "up"):
        if any(layer.block == block for layer in maps.layers):
            yield "block", block, maps.select(layers=[block]).heat_map(word, size)
    if len(maps.layers) <= MOST_LAYERS:
        for number, layer in enumerate(maps.layers):
            yield (
                "layer",
                f"{number:02d} {layer.block} {layer.grid[0]} x {layer.grid[1]}",
                maps.select(layers=[number]).heat_map(word, size),
            )
    for name, steps in step_ranges(maps.steps).items():
        yield "steps", name, maps.select(steps=steps).heat_map(word, size)
    for grid in sorted(maps.sums):
        # By resolution: layers of different size may have different numbers of heads.
        of_grid = maps.select(grids=[grid])
        for head in range(max(layer.heads for layer in maps.layers if layer.grid == grid)):
            yield "head", f"{grid[0]} x {grid[1]}, head {head}", of_grid.select(heads=[head]).heat_map(word, size)
    modes: tuple[Mode, ...] = ("nearest", "bilinear", "bicubic", "area")
    for mode in modes:
        yield "interpolation", mode, interpolated(maps, word, size, mode)
    yield from _aggregations(maps, castorini, word, size)


def step_ranges(steps: int) -> dict[str, list[int]]:
    """The quarters of a run that are not empty, and its two halves: name -> step numbers from 0."""
    cuts = [round(steps * k / 4) for k in range(5)]
    ranges = {name: list(range(a, b)) for name, a, b in zip(QUARTERS, cuts, cuts[1:], strict=False)}
    ranges |= {"first half": list(range(cuts[2])), "last half": list(range(cuts[2], steps))}
    return {name: numbers for name, numbers in ranges.items() if numbers}


def native(maps: HeatMaps, word: str) -> dict[tuple[int, int], Tensor]:
    """The word's map at each recorded resolution, float32 `[h, w]`, before any upscaling."""
    return {grid: maps.select(grids=[grid]).heat_map(word, grid) for grid in maps.sums}


def interpolated(maps: HeatMaps, word: str, size: Size, mode: Mode) -> Tensor:
    """Eq. 6 with another interpolation than bicubic. "area" averages where it shrinks and repeats where it enlarges."""
    total = torch.zeros(size)
    for level in native(maps, word).values():
        more = {"align_corners": False} if mode in ("bilinear", "bicubic") else {}
        total += F.interpolate(level[None, None], size=size, mode=mode, **more)[0, 0]
    return total


def _aggregations(maps: HeatMaps, castorini: HeatMaps | None, word: str, size: Size) -> Iterator[tuple[str, str, Tensor]]:
    family = "aggregation"
    yield family, "sum (Eq. 6)", maps.heat_map(word, size)
    yield family, "late steps (j²)", maps.weighted_by_time().heat_map(word, size)
    if castorini is not None:
        yield family, "castorini's rule", castorini.heat_map(word, size)
    yield family, "equal resolutions", equal_resolutions(maps, word, size)
    yield family, "geometric mean", geometric_mean(maps, word, size)
    yield (
        family,
        "maximum of steps",
        torch.stack([maps.select(steps=[j]).heat_map(word, size) for j in range(maps.steps)]).amax(0),
    )


def equal_resolutions(maps: HeatMaps, word: str, size: Size) -> Tensor:
    """Each resolution stretched to 0..1 before the sum, so that none outweighs the others by its number of layers."""
    return torch.stack([minmax(maps.select(grids=[grid]).heat_map(word, size)) for grid in sorted(maps.sums)]).sum(0)


def geometric_mean(maps: HeatMaps, word: str, size: Size) -> Tensor:
    """Where all resolutions agree: the n-th root of the product of the maps stretched to 0..1."""
    stretched = torch.stack([minmax(maps.select(grids=[grid]).heat_map(word, size)) for grid in sorted(maps.sums)])
    return torch.from_numpy(np.power(stretched.double().prod(0).numpy(), 1 / len(stretched)).astype(np.float32))
