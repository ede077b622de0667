"""Where in the picture a prompt was at work: hosts let a prompt paint a rectangle, or through a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Area:
    """A rectangle of the picture in shares of its height and width (0..1), and a mask inside the picture.

    Attributes:
        top, left, height, width: the rectangle that the model was shown.
        mask: float `[H, W]` 0..1 over the whole picture, where the prompt counts; None is everywhere.
    """

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0
    mask: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether the model was shown the whole picture."""
        return (self.top, self.left, self.height, self.width) == (0.0, 0.0, 1.0, 1.0)

    def canvas(self, grid: Grid) -> Grid:
        """The grid of the whole picture at the density of `grid` inside the rectangle."""
        return max(grid[0], round(grid[0] / self.height)), max(grid[1], round(grid[1] / self.width))

    def put(self, maps: Tensor) -> Tensor:
        """Maps `[..., h, w]` of the rectangle -> `[..., H, W]` of the whole picture, 0 elsewhere, mask applied."""
        h, w = maps.shape[-2:]
        rows, columns = self.canvas((h, w))
        y, x = min(round(self.top * rows), rows - h), min(round(self.left * columns), columns - w)
        placed = maps if self.whole else F.pad(maps, (x, columns - w - x, y, rows - h - y))
        if self.mask is None:
            return placed
        mask = self.mask.detach().float().cpu()
        return placed * torch.nn.functional.adaptive_avg_pool2d(mask[None, None], (rows, columns))[0, 0].to(placed.dtype)


WHOLE = Area()
