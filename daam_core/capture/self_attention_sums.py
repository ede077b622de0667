"""The attention of the picture to itself: one grid of bounded size, in few steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..attention.cells import Cells
from ..attention.joint import add_joint_self
from ..types import Grid

SELF_ATTENTION_POSITIONS = 576
"""Self-attention is kept at the finest grid of at most this many positions (24 x 24): n x n float32, at most 1.3 MB."""
VIDEO_SELF_ATTENTION_POSITIONS = 2000
"""The same of all frames of a video together: at most 16 MB."""
JOINT_SELF_ATTENTION_LAYERS = 4
"""Of joint attention every fourth layer gives the picture's attention to itself, in each step that keeps it another fourth."""


def is_kept_in(step: int) -> bool:
    """Whether self-attention is kept in a step, from 1: in the first, fourth, ninth, sixteenth, …"""
    return math.isqrt(step) ** 2 == step


def is_turn_of(layer: int, step: int) -> bool:
    """Whether a layer of joint attention is one of those that give it in a step in which it is kept."""
    kept_before = math.isqrt(step) - 1
    return (layer - kept_before) % JOINT_SELF_ATTENTION_LAYERS == 0


class SelfAttentionSums:
    """The sums of the pictures of one side.

    Attributes:
        maps: `[images, n, n]` float32 (query, key), summed over heads, layers, steps; None before there is any.
        grid: what its n positions are.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self.maps: Tensor | None = None
        self.grid: Grid | None = None

    def fits(self, grid: Grid) -> bool:
        """Whether attention of this grid belongs to the sums: only of the finest grid of bounded size."""
        return grid == self.grid if self.grid else grid[0] * grid[1] <= SELF_ATTENTION_POSITIONS

    def of(self, grid: Grid, n: int, device: torch.device) -> Tensor:
        """The sums; the first grid that comes settles which they are."""
        if self.maps is None:
            self.grid, self.maps = grid, torch.zeros(self._images, n, n, device=device)
        return self.maps

    def add_joint(
        self,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        picture: slice,
        bias: Tensor | None = None,
        lse: Tensor | None = None,
        frames: int = 1,
    ) -> None:
        """The picture's attention to itself in one joint layer; see `joint.add_joint_self`.

        A grid of more than `SELF_ATTENTION_POSITIONS` is cut into as many cells: a query from the middle of each, and the
        mean of the keys of each. Of a video, whose frames attend to each other, all frames are cut alike into
        `VIDEO_SELF_ATTENTION_POSITIONS` in all; a cell lies in one frame.
        """
        if frames == 1:
            one = cells = Cells.at_most(grid, SELF_ATTENTION_POSITIONS)
        else:
            one = Cells.at_most(grid, max(1, VIDEO_SELF_ATTENTION_POSITIONS // frames))
            cells = Cells((frames * grid[0], grid[1]), (frames * one.shape[0], one.shape[1]))
        n = cells.shape[0] * cells.shape[1]
        maps = self.of(one.shape, n, q.device)
        if self.grid == one.shape and maps.shape[-1] == n:
            add_joint_self(maps, q, k, cells, heads, scale, picture, bias, lse)
