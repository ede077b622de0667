"""Running sums of one run (prompt or negative prompt): per picture, resolution and, when asked, layer, step, head.

Everything stays on the model's device and is flat in steps and layers unless detail is asked for. Bicubic upscaling is
linear, so Eq. 6 loses nothing when heads, layers and steps are summed at native resolution first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import add_head_sum, add_per_head, add_self_attention

Grid = tuple[int, int]
SELF_ATTENTION_POSITIONS = 576
"""Self-attention is kept at the finest grid of at most this many positions (24 x 24): n x n float32, at most 1.3 MB."""


@dataclass(frozen=True)
class Keep:
    """What is kept beyond the sums of Eq. 6.

    Attributes:
        layers: the layers apart.
        steps: the steps apart.
        heads: the heads apart (summed over steps; `method="castorini"` needs it).
        self_attention: the attention of the picture to itself.
    """

    layers: bool = False
    steps: bool = False
    heads: bool = False
    self_attention: bool = False


@dataclass
class _Slot:
    """One running sum: a grid's, or a layer's when layers are kept apart."""

    grid: Grid
    now: Tensor
    total: Tensor
    late: Tensor
    terms: int = 0
    terms_now: int = 0
    steps: list[Tensor] = field(default_factory=list)


class Recorder:
    """Sums attention while the model samples.

    Args:
        images: number of pictures.
        select: gives, for a context of that many keys, the selection `[images, keys, rows]` float32 (see
            `Prompt.selection`).
        keep: what to keep apart.
    """

    def __init__(self, images: int, select: Callable[[int], Tensor], keep: Keep) -> None:
        self.images = images
        self.keep = keep
        self.step_count = 0
        self.slots: dict[Grid | int, _Slot] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[int, Tensor] = {}
        self.self_attention: Tensor | None = None
        self.self_grid: Grid | None = None
        self._select = select
        self._selections: dict[tuple[int, torch.device], Tensor] = {}

    def add_cross(self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """One cross-attention layer of one step: q `[images, n, heads * d]`, k `[images, keys, heads * d]`.

        Raises:
            ValueError: the grid does not cover the queries.
        """
        if grid[0] * grid[1] != q.shape[1]:
            raise ValueError(f"{q.shape[1]} queries do not fill a grid of {grid[0]} x {grid[1]}")
        selection = self._selection(k.shape[1], q.device)
        slot = self._slot(layer, grid, q.device, selection.shape[-1])
        add_head_sum(slot.now, q, k, selection, heads, scale)
        slot.terms_now += heads
        if self.keep.heads:
            self._add_heads(layer, q, k, selection, heads, scale)

    def add_self(self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """One self-attention layer of one step; only the finest grid of bounded size is kept."""
        n = q.shape[1]
        if self.self_grid is None and n <= SELF_ATTENTION_POSITIONS:
            self.self_grid = grid
            self.self_attention = torch.zeros(self.images, n, n, device=q.device)
        if self.self_attention is not None and grid == self.self_grid:
            add_self_attention(self.self_attention, q, k, heads, scale)

    def end_step(self) -> None:
        """Fold the step into the sums; an interrupted step is simply never folded."""
        self.step_count += 1
        for slot in self.slots.values():
            slot.terms, slot.terms_now = slot.terms + slot.terms_now, 0
            slot.total += slot.now
            slot.late.add_(slot.now, alpha=self.step_count**2)
            if self.keep.steps:
                # Rows 1..-2 are the words: the detail of start, end and padding would cost a fifth more memory.
                slot.steps.append(slot.now[..., 1:-2].half())
            slot.now.zero_()

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        for slot in self.slots.values():
            slot.now = slot.now.new_empty(0)
        self._selections.clear()

    def _slot(self, layer: int, grid: Grid, device: torch.device, rows: int) -> _Slot:
        self.grids.setdefault(layer, grid)
        key: Grid | int = layer if self.keep.layers else grid
        if key not in self.slots:
            now, total, late = (torch.zeros(self.images, grid[0] * grid[1], rows, device=device) for _ in range(3))
            self.slots[key] = _Slot(grid, now, total, late)
        return self.slots[key]

    def _add_heads(self, layer: int, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float) -> None:
        if layer not in self.heads:
            self.heads[layer] = torch.zeros(self.images * heads, q.shape[1], selection.shape[-1], device=q.device)
        add_per_head(self.heads[layer], q, k, selection, heads, scale)

    def _selection(self, keys: int, device: torch.device) -> Tensor:
        known = (keys, device)
        if known not in self._selections:
            self._selections[known] = self._select(keys).to(device)
        return self._selections[known]
