"""A preview of several pictures side by side, as the WebUIs make it of a batch: where each stands, and heat over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from daam_core.defaults import DEFAULT_OPACITY
from daam_core.render import overlay
from daam_core.types import Grid, Size

SIDE, TILE = 512, 256
"""Pixels of the longer side of a picture alone, and of one of several."""
_SKEW = 1.06
"""So far a preview's shape may be from its latents': hosts round the sizes of small previews."""
_SCALES = (1, 8)
"""Pixels of a preview for each latent position of a Stable Diffusion, as most methods make them."""


def tile_size(latent: Grid, count: int) -> Size:
    """(height, width) in pixels at which each of `count` pictures is drawn, in the shape of its latent (h, w)."""
    longer = (SIDE if count == 1 else TILE) / max(latent)
    return max(1, round(latent[0] * longer)), max(1, round(latent[1] * longer))


def layout(preview: Size, latent: Grid, count: int) -> Grid | None:
    """(rows, columns) in which pictures of a latent's shape fill a preview of (height, width): all `count` of them, as the
    hosts' grids do, or the first alone; None where neither fits."""

    def skew(grid: Grid) -> float:
        shape = preview[1] * latent[0] * grid[0] / (preview[0] * latent[1] * grid[1])
        return max(shape, 1 / shape)

    def unusual(grid: Grid) -> bool:
        """2 x 2 pictures have the shape of one; a preview has a pixel for each latent position, or all of a picture's."""
        return preview[1] / (grid[1] * latent[1]) not in _SCALES

    grids = {(rows, -(-count // rows)) for rows in range(1, count + 1)} | {(1, 1)}
    found = min(grids, key=lambda grid: (round(skew(grid), 3), unusual(grid), -grid[0] * grid[1]))
    return found if skew(found) < _SKEW else None


def with_heat(preview: Image.Image, heats: Sequence[Tensor | None], size: Size, grid: Grid, word: str) -> Image.Image:
    """A preview with the heat over each of its pictures, and the word below it.

    Args:
        heats: float32 `[h, w]` of each picture at `size`; None where a picture has none, which stays as it is.
        size: (height, width) of each picture.
        grid: rows and columns of pictures.
    """
    rows, columns = grid
    height, width = size
    resized = preview.convert("RGB").resize((columns * width, rows * height), Image.Resampling.BILINEAR)
    ground = np.array(resized)
    label = word if grid == (1, 1) else None
    for number, heat in enumerate(heats[: rows * columns]):
        if heat is None:
            continue
        y, x = number // columns * height, number % columns * width
        drawn = overlay(ground[y : y + height, x : x + width], heat, DEFAULT_OPACITY, label=label, bar=False)
        if label is not None:
            return Image.fromarray(drawn)
        ground[y : y + height, x : x + width] = drawn
    return Image.fromarray(ground)
