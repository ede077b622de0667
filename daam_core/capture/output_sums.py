"""Running sums of an attention's output: how far it agrees with each word's, and how far its places agree with each other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.cells import Cells
from ..attention.output import add_affinity, add_output_scores
from ..types import Grid
from .buffers import BatchSlice
from .region import Area

AFFINITY_POSITIONS = 576
"""Places are held against each other on a grid of at most this many cells (24 x 24): n x n float32, at most 1.3 MB."""
AFFINITY_LAYERS = 8
"""Of a finer grid, whose outputs are brought to cells first, every eighth layer is taken, in each step another eighth."""


class OutputSums:
    """Sums of output space of one side, `[images, …]`; flat in layers and steps.

    Attributes:
        now: per grid and area, float32 `[images, n, channels]`: this step's scores.
        scores: those of all finished steps, step j = 1, 2, … weighted by j squared.
        affinity: float32 `[images, cells, cells]` by the layers' own grid: cosines of outputs, step j weighted by j squared.
            After the first step one grid stays: the finest of at most `AFFINITY_POSITIONS`, else the coarsest.
        weights: what each of these was weighted with in all.
        numbers: of the layers that were added.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.now: dict[tuple[Grid, Area], Tensor] = {}
        self.scores: dict[tuple[Grid, Area], Tensor] = {}
        self.affinity: dict[Grid, Tensor] = {}
        self.weights: dict[Grid, float] = {}
        self._settled = False

    def add(
        self, layer: int, grid: Grid, output: Tensor, values: Tensor, selection: Tensor, where: BatchSlice, step: int
    ) -> None:
        """One layer of one step.

        Args:
            layer: its number.
            grid: (h, w) of the picture's positions.
            output: `[images, n, heads * d]`.
            values: `[images, keys, heads * d]`, see `add_output_scores`.
            selection: `[images, keys, channels]` float32.
            where: which part of the picture this is.
            step: its number, from 1.
        """
        key = grid, where.area
        if key not in self.now:
            shape = (self.images, grid[0] * grid[1], selection.shape[-1])
            for sums in (self.now, self.scores):
                sums[key] = torch.zeros(shape, device=output.device)
        add_output_scores(self.now[key], output, values, selection)
        if where.area.whole:
            self._add_affinity(layer, grid, output, step)

    def _add_affinity(self, layer: int, grid: Grid, output: Tensor, step: int) -> None:
        if self._settled and grid not in self.affinity:
            return
        cells = Cells.at_most(grid, AFFINITY_POSITIONS)
        if not cells.are_positions and (layer - step) % AFFINITY_LAYERS and self.weights.get(grid):
            return
        if grid not in self.affinity:
            n = cells.shape[0] * cells.shape[1]
            self.affinity[grid], self.weights[grid] = torch.zeros(self.images, n, n, device=output.device), 0.0
        add_affinity(self.affinity[grid], output, cells, float(step**2))
        self.weights[grid] += step**2

    def end_step(self, step: int) -> None:
        """Step `step`, from 1, is over."""
        if not self._settled and self.affinity:
            self._settled = True
            kept = affinity_grid(list(self.affinity))
            self.affinity, self.weights = {kept: self.affinity[kept]}, {kept: self.weights[kept]}
        if not self.now:
            return
        now = list(self.now.values())
        torch._foreach_add_([self.scores[key] for key in self.now], now, alpha=step**2)
        torch._foreach_zero_(now)

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        self.now = {}


def affinity_grid(grids: list[Grid]) -> Grid:
    """The grid whose outputs are held against each other: the finest of at most `AFFINITY_POSITIONS`, else the coarsest.

    Example:
        >>> affinity_grid([(64, 64), (32, 32), (16, 16), (8, 8)]), affinity_grid([(128, 128), (64, 64)])
        ((16, 16), (64, 64))
    """
    small = [grid for grid in grids if grid[0] * grid[1] <= AFFINITY_POSITIONS]
    return max(small, key=_positions) if small else min(grids, key=_positions)


def _positions(grid: Grid) -> int:
    return grid[0] * grid[1]
