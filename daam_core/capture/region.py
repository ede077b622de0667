"""The region of the picture that a prompt is for: a rectangle, and a mask inside the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Grid


@dataclass(frozen=True, eq=False)
class Area:
    """A rectangle in shares of the picture's height and width, and a mask inside the picture.

    Attributes:
        top, left, height, width: the rectangle that the model was shown: a part of the picture (all within 0..1), or more
            than the picture (top and left <= 0, height and width >= 1), where its edges were cut off afterwards.
        mask: float `[H, W]` 0..1 over the whole picture, where the prompt counts; None is everywhere. `[masks, H, W]` are those
            of a batch's pictures, from the first again where there are fewer.
        counted: whether its terms are counted; not those of a further view of what another area shows.
    """

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0
    mask: Tensor | None = None
    counted: bool = True

    @property
    def whole(self) -> bool:
        """Whether the model was shown the whole picture."""
        return (self.top, self.left, self.height, self.width) == (0.0, 0.0, 1.0, 1.0)

    def canvas(self, grid: Grid) -> Grid:
        """The grid of the whole picture at the density of `grid` inside the rectangle."""
        return _along(grid[0], self.height), _along(grid[1], self.width)

    def put(self, maps: Tensor, picture: int = 0) -> Tensor:
        """Maps `[..., h, w]` of the rectangle -> `[..., H, W]` of the whole picture, 0 elsewhere, mask applied.

        What lies outside the picture is left out; `picture` is its number in the batch."""
        h, w = maps.shape[-2:]
        height, width = self.canvas((h, w))
        y, x = _offset(self.top, h, height), _offset(self.left, w, width)
        placed = maps if self.whole else F.pad(maps, (x, width - w - x, y, height - h - y))
        if self.mask is None:
            return placed
        mask = self.mask if self.mask.dim() == 2 else self.mask[picture % len(self.mask)]
        mask = mask.detach().float().cpu()
        return placed * torch.nn.functional.adaptive_avg_pool2d(mask[None, None], (height, width))[0, 0].to(placed.dtype)


def _along(positions: int, share: float) -> int:
    """Positions of the whole picture on one side where the rectangle has so many."""
    whole = round(positions / share)
    return max(positions, whole) if share <= 1 else max(1, min(positions, whole))


def _offset(start: float, positions: int, whole: int) -> int:
    """Where the rectangle's first position lies on one side of the picture; negative where it begins before it."""
    room = whole - positions
    return min(max(round(start * whole), min(0, room)), max(0, room))


WHOLE = Area()
