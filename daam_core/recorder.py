"""Running sums of one run (prompt or negative prompt): per picture, resolution and, when asked, layer, step, head.

Everything stays on the model's device and is flat in steps and layers unless detail is asked for. Bicubic upscaling is
linear, so Eq. 6 loses nothing when heads, layers and steps are summed at native resolution first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import TEMPORARY_BYTES, add_head_sum, add_per_head, add_self_attention

Grid = tuple[int, int]
_Shape = tuple[bool, Grid, int, int, float]
"""What layers that are worked off together share: text or self, grid, keys, heads, scale."""
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


PROBED_LAYERS = 4
"""Layers worked off at once before layers are gathered, to see that the model leaves its queries as they are."""


@dataclass
class _Pool:
    """Layers of one shape that wait to be worked off together: side by side they are one layer of more heads."""

    q: list[Tensor] = field(default_factory=list)
    k: list[Tensor] = field(default_factory=list)
    versions: int = 0
    bytes: int = 0


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

    Small layers are not worked off one by one, which would cost a small model more time than its own work: they are
    gathered until their temporaries reach the budget and then summed as one layer of many heads.

    Args:
        rows: which rows of the model's batch are the pictures.
        select: gives, for a context of that many keys, the selection `[images, keys, rows]` float32 (see
            `Prompt.selection`).
        keep: what to keep apart.
    """

    def __init__(self, rows: slice, select: Callable[[int], Tensor], keep: Keep) -> None:
        self.rows = rows
        self.images: int = rows.stop - rows.start
        self.keep = keep
        self.step_count = 0
        self.slots: dict[Grid | int, _Slot] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[int, Tensor] = {}
        self.self_attention: Tensor | None = None
        self.self_grid: Grid | None = None
        self._select = select
        self._selections: dict[tuple[int, torch.device], Tensor] = {}
        self._pools: dict[_Shape, _Pool] = {}
        self._probed = 0
        self._last: tuple[Tensor, int] | None = None
        self._in_place = False

    def add_cross(self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Raises:
            ValueError: the grid does not cover the queries.
        """
        n, keys = q.shape[1], k.shape[1]
        if grid[0] * grid[1] != n:
            raise ValueError(f"{n} queries do not fill a grid of {grid[0]} x {grid[1]}")
        slot = self._slot(layer, grid, q.device, keys)
        slot.terms_now += heads
        if self._gathered((True, grid, keys, heads, scale), q, k):
            return
        q, k, selection = q[self.rows], k[self.rows], self._selection(keys, q.device)
        add_head_sum(slot.now, q, k, selection, heads, scale)
        if self.keep.heads:
            self._add_heads(layer, q, k, selection, heads, scale)

    def _may_wait(self, q: Tensor) -> bool:
        """Whether layers can be gathered: none is wanted apart, and the model was seen to leave its queries alone."""
        if self.keep.layers or self.keep.heads or self._in_place or q.is_inference():
            return False
        if self._probed <= PROBED_LAYERS:
            if self._last is not None:
                self._in_place |= self._last[0]._version != self._last[1]
            self._probed += 1
            self._last = (q, q._version) if self._probed <= PROBED_LAYERS else None
            return False
        return True

    def _gathered(self, shape: _Shape, q: Tensor, k: Tensor) -> bool:
        """Let a layer wait for others of its shape, if it may and two of them fit into the budget."""
        cost = 2 * (q.nbytes + k.nbytes) + 8 * self.images * shape[3] * q.shape[1] * k.shape[1]
        if not self._may_wait(q) or 2 * cost > TEMPORARY_BYTES:
            return False
        pool = self._pools.get(shape)
        if pool is None:
            pool = self._pools[shape] = _Pool()
        if pool.bytes + cost > TEMPORARY_BYTES:
            self._work_off(shape, pool)
        pool.q.append(q)
        pool.k.append(k)
        pool.versions += q._version + k._version
        pool.bytes += cost
        return True

    def _work_off(self, shape: _Shape, pool: _Pool) -> None:
        if not pool.q:
            return
        cross, grid, keys, heads, scale = shape
        if sum(q._version + k._version for q, k in zip(pool.q, pool.k, strict=True)) != pool.versions:
            raise RuntimeError("the model changed its queries or keys in place after they were made")
        q, k = (torch.cat(x, -1)[self.rows] for x in (pool.q, pool.k))
        heads *= len(pool.q)
        if cross:
            add_head_sum(self.slots[grid].now, q, k, self._selection(keys, q.device), heads, scale)
        elif self.self_attention is not None:
            add_self_attention(self.self_attention, q, k, heads, scale)
        pool.q, pool.k, pool.versions, pool.bytes = [], [], 0, 0

    def add_self(self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
        """One self-attention layer of one step, q and k `[batch, n, heads * d]`; only the finest grid of bounded size
        is kept."""
        if not self.keep.self_attention:
            return
        n = q.shape[1]
        if self.self_grid is None and n <= SELF_ATTENTION_POSITIONS:
            self.self_grid = grid
            self.self_attention = torch.zeros(self.images, n, n, device=q.device)
        if self.self_attention is None or grid != self.self_grid:
            return
        if not self._gathered((False, grid, n, heads, scale), q, k):
            add_self_attention(self.self_attention, q[self.rows], k[self.rows], heads, scale)

    def end_step(self) -> None:
        """Fold the step into the sums; an interrupted step is simply never folded."""
        self.step_count += 1
        for shape, pool in self._pools.items():
            self._work_off(shape, pool)
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
        self._pools.clear()
        self._last = None

    def _slot(self, layer: int, grid: Grid, device: torch.device, keys: int) -> _Slot:
        self.grids.setdefault(layer, grid)
        key: Grid | int = layer if self.keep.layers else grid
        if key not in self.slots:
            rows = self._selection(keys, device).shape[-1]
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
