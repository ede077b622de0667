"""Cells of a grid: the few places that stand for a large picture where each is set against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Grid


@dataclass(frozen=True)
class Cells:
    """A grid (h, w) of positions, cut evenly into `shape` cells.

    Attributes:
        grid: (h, w) of the positions.
        shape: (rows, columns) of the cells, at most as many as positions.

    Example:
        >>> cells = Cells.at_most((64, 64), 576)
        >>> cells.shape, len(cells.centres())
        ((24, 24), 576)
    """

    grid: Grid
    shape: Grid

    @classmethod
    def at_most(cls, grid: Grid, count: int) -> Cells:
        """The finest cells of the grid's proportions of which there are at most `count`; its own positions where these fit."""
        h, w = grid
        if h * w <= count:
            return cls(grid, grid)
        scale = math.sqrt(count / (h * w))
        rows = min(count, max(1, math.floor(h * scale + 1e-9)))
        return cls(grid, (rows, max(1, min(math.floor(w * scale + 1e-9), count // rows))))

    @property
    def are_positions(self) -> bool:
        """Whether each position is a cell of its own."""
        return self.grid == self.shape

    def centres(self, device: torch.device | None = None) -> Tensor:
        """int64 `[cells]`: the position in the middle of each cell, row by row."""
        y, x = (
            torch.arange(count, device=device).mul_(2).add_(1).mul_(size).div_(2 * count, rounding_mode="floor")
            for size, count in zip(self.grid, self.shape, strict=True)
        )
        return (y[:, None] * self.grid[1] + x).flatten()

    def mean(self, values: Tensor) -> Tensor:
        """`[batch, m, h * w]` -> `[batch, m, cells]`: the mean over each cell's positions; neighbours share those that the
        edge between them cuts, as `adaptive_avg_pool2d` shares them."""
        if self.are_positions:
            return values
        return F.adaptive_avg_pool2d(values.unflatten(-1, self.grid), self.shape).flatten(-2)
