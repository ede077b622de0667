"""Running sums of one run (prompt or negative prompt): per picture, resolution and, when asked, layer, step, head.

Everything stays on the model's device and is flat in steps and layers unless detail is asked for. Bicubic upscaling is
linear, so Eq. 6 loses nothing when heads, layers and steps are summed at native resolution first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..attention.joint import add_joint
from ..attention.scores import add_head_sum, add_per_head, add_self_attention, add_weighted_head_sums, split_heads
from ..types import Grid
from .layer_batching import Pool, WorkOff
from .region import WHOLE, Area

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


@dataclass(frozen=True, eq=False)
class Source:
    """Which part of a model's batch is recorded, and what it is about; one value serves all layers and steps.

    Attributes:
        start, stop: the rows of the batch, one for each picture.
        part: which prompt, where a picture is made of several (AND, regions, schedules).
        area: which part of the picture these rows paint.
    """

    start: int
    stop: int
    part: int = 0
    area: Area = WHOLE

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass
class Sums:
    """The sums of Eq. 6 at one resolution and in one area of the picture, `[2, images, n, rows]` float32.

    Attributes:
        both: `total` over heads, layers and steps, and `late`: the same with step j = 1, 2, … weighted by j squared.
        terms: heads x layers x steps that went into them.
    """

    grid: Grid
    area: Area
    both: Tensor
    terms: int = 0

    @property
    def total(self) -> Tensor:
        return self.both[0]

    @property
    def late(self) -> Tensor:
        return self.both[1]


@dataclass
class _Slot:
    """What is heard in this step: of a resolution, or of a layer where layers are kept apart.

    Attributes:
        now: running sum of this step `[images, n, rows]`, of what did not wait in a pool.
        heard: whether there is anything in it.
        into: where the step goes when it is done.
        total: this layer's own sum over steps, where steps are not kept.
        steps: float16 `[images, n, words]` each.
    """

    grid: Grid
    area: Area
    layer: int | None
    now: Tensor
    into: Sums
    total: Tensor | None
    heard: bool = False
    terms_now: int = 0
    steps: list[Tensor] = field(default_factory=list)


@dataclass
class _Plan:
    """What is the same for one layer in every step: its sum, its selection `[images, keys, rows]`, the pool it may wait in."""

    q_shape: torch.Size
    k_shape: torch.Size
    slot: _Slot
    selection: Tensor
    pool: Pool | None


class Recorder:
    """Sums attention while the model samples. Small layers wait in pools (see `pool`) unless layers are kept apart.

    Args:
        rows: which rows of the model's batch are the pictures, unless a call says otherwise.
        select: gives, for a context of that many keys and the number of a prompt (0 where there is one), the selection
            `[images, keys, rows]` float32 (see `Prompt.selection`).
        keep: what to keep apart.
    """

    def __init__(self, rows: slice, select: Callable[[int, int], Tensor], keep: Keep) -> None:
        self.source = Source(rows.start, rows.stop)
        self.images: int = rows.stop - rows.start
        self.keep = keep
        self.step_count = 0
        self._sums: dict[tuple[Grid, Area], Sums] = {}
        self.slots: dict[tuple[Grid | int, Area], _Slot] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[int, Tensor] = {}
        self._self_attention: Tensor | None = None
        self.self_grid: Grid | None = None
        self._select = select
        self._selections: dict[tuple[int, int, torch.device], Tensor] = {}
        self._pools: dict[tuple[Any, ...], Pool] = {}
        self._plans: dict[tuple[int, Source], _Plan] = {}

    @property
    def sums(self) -> dict[tuple[Grid, Area], Sums]:
        """The sums of all finished steps."""
        self._settle()
        return self._sums

    @property
    def self_attention(self) -> Tensor | None:
        """The attention of the picture to itself, `[images, n, n]` float32 (query, key), summed over heads, layers, steps."""
        self._settle()
        return self._self_attention

    def _settle(self) -> None:
        """Finished steps may still wait in pools."""
        for pool in self._pools.values():
            pool.settle()

    def add_cross(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        source: Source | None = None,
    ) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Raises:
            ValueError: the grid does not cover the queries.
        """
        source = source or self.source
        plan = self._plans.get((layer, source))
        if plan is None or plan.q_shape != q.shape or plan.k_shape != k.shape:
            plan = self._plans[layer, source] = self._plan(layer, grid, q, k, heads, scale, source)
        plan.slot.terms_now += heads
        if plan.pool is not None:
            plan.pool.add(q, k)
            return
        plan.slot.heard = True
        q, k = split_heads(q[source.rows], heads), split_heads(k[source.rows], heads)
        add_head_sum(plan.slot.now, q, k, plan.selection, heads, scale)
        if self.keep.heads:
            self._add_heads(layer, q, k, plan.selection, heads, scale)

    def _plan(self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, source: Source) -> _Plan:
        n, keys = q.shape[1], k.shape[1]
        if grid[0] * grid[1] != n:
            raise ValueError(f"{n} queries do not fill a grid of {grid[0]} x {grid[1]}")
        selection = self._selection(keys, source.part, q.device)
        slot = self._slot(layer, grid, source.area, selection)
        pool = None
        if not (self.keep.layers or self.keep.heads):

            def work_off(q: Tensor, k: Tensor, weights: Tensor | None) -> None:
                if weights is None:
                    slot.heard = True
                    add_head_sum(slot.now, q, k, selection, heads, scale)
                else:
                    add_weighted_head_sums(slot.into.both, q, k, selection, heads, scale, weights)

            pool = self._pool(("text", grid), q, k, heads, scale, source, work_off)
        return _Plan(q.shape, k.shape, slot, selection, pool)

    def _pool(
        self, what: object, q: Tensor, k: Tensor, heads: int, scale: float, source: Source, work_off: WorkOff
    ) -> Pool | None:
        """The pool of layers of one shape; None where they are too large to wait."""
        key = (what, q.shape, k.shape, heads, scale, source)
        if key not in self._pools:
            self._pools[key] = Pool(q.shape, k.shape, source.rows, heads, q.device, work_off, not self.keep.steps)
        pool = self._pools[key]
        return pool if pool.worth_it else None

    def add_joint(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        source: Source,
        text: slice,
        bias: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> None:
        """One joint-attention layer of one step, its rows cut to `source` already; see `attention.add_joint`."""
        selection = self._selection(text.stop - text.start, source.part, q.device)
        slot = self._slot(layer, grid, source.area, selection)
        slot.terms_now, slot.heard = slot.terms_now + heads, True
        add_joint(slot.now, q, k, selection, heads, scale, text, bias, lse)

    @property
    def self_step(self) -> bool:
        """Whether self-attention is kept in this step: in the first, fourth, ninth, sixteenth, …

        It changes slowly and is the dearest part of recording; runs of few steps need the early ones.
        """
        number = self.step_count + 1
        return self.keep.self_attention and math.isqrt(number) ** 2 == number

    def wants_self(self, grid: Grid) -> bool:
        """Whether `add_self` would keep self-attention of this grid in this step: only of the finest grid of bounded size."""
        if not self.self_step:
            return False
        return grid == self.self_grid if self.self_grid else grid[0] * grid[1] <= SELF_ATTENTION_POSITIONS

    def add_self(self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, source: Source | None = None) -> None:
        """One self-attention layer of one step, q and k `[batch, n, heads * d]`, if it is wanted (see `wants_self`)."""
        if not self.wants_self(grid):
            return
        if self._self_attention is None:
            n = q.shape[1]
            self.self_grid, self._self_attention = grid, torch.zeros(self.images, n, n, device=q.device)
        into = self._self_attention
        source = source or self.source

        def work_off(q: Tensor, k: Tensor, weights: Tensor | None) -> None:
            add_self_attention(into, q, k, heads, scale)

        pool = None
        if not (self.keep.layers or self.keep.heads):
            pool = self._pool("self", q, k, heads, scale, source, work_off)
        if pool is not None:
            pool.add(q, k)
        else:
            work_off(split_heads(q[source.rows], heads), split_heads(k[source.rows], heads), None)

    def end_step(self) -> None:
        """Fold the step into the sums; an interrupted step is simply never folded."""
        self.step_count += 1
        for pool in self._pools.values():
            pool.end_step(self.step_count)
        for slot in self.slots.values():
            slot.into.terms, slot.terms_now = slot.into.terms + slot.terms_now, 0
            if slot.total is not None:
                slot.total += slot.now
            if self.keep.steps:
                # Rows 1..-2 are the words: the detail of start, end and padding would cost a fifth more memory.
                slot.steps.append(slot.now[..., 1:-2].half())
        heard = [slot for slot in self.slots.values() if slot.heard]
        # Where layers are kept apart, several slots go into the same sums, which one launch must not do.
        for slots in filter(None, [[slot] for slot in heard] if self.keep.layers else [heard]):
            now = [slot.now for slot in slots]
            torch._foreach_add_([slot.into.total for slot in slots], now)
            torch._foreach_add_([slot.into.late for slot in slots], now, alpha=self.step_count**2)
            torch._foreach_zero_(now)
        for slot in heard:
            slot.heard = False

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        self._settle()
        for slot in self.slots.values():
            slot.now = slot.now.new_empty(0)
        self._selections.clear()
        self._pools.clear()
        self._plans.clear()

    def _slot(self, layer: int, grid: Grid, area: Area, selection: Tensor) -> _Slot:
        self.grids.setdefault(layer, grid)
        key: tuple[Grid | int, Area] = (layer if self.keep.layers else grid, area)
        if key not in self.slots:
            shape = (self.images, grid[0] * grid[1], selection.shape[-1])
            if (grid, area) not in self._sums:
                self._sums[grid, area] = Sums(grid, area, torch.zeros(2, *shape, device=selection.device))
            now = torch.zeros(shape, device=selection.device)
            own = torch.zeros_like(now) if self.keep.layers and not self.keep.steps else None
            slot = _Slot(grid, area, layer if self.keep.layers else None, now, self._sums[grid, area], own)
            if self.keep.steps:  # a prompt that comes in late was not there before
                slot.steps = [now[..., 1:-2].half()] * self.step_count
            self.slots[key] = slot
        return self.slots[key]

    def _add_heads(self, layer: int, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float) -> None:
        if layer not in self.heads:
            self.heads[layer] = torch.zeros(self.images * heads, q.shape[1], selection.shape[-1], device=q.device)
        add_per_head(self.heads[layer], q, k, selection, heads, scale)

    def _selection(self, keys: int, part: int, device: torch.device) -> Tensor:
        known = (keys, part, device)
        if known not in self._selections:
            self._selections[known] = self._select(keys, part).to(device)
        return self._selections[known]
