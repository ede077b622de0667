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
from .layer_batching import FlushFn, LayerBatch
from .region import WHOLE, Area

SELF_ATTENTION_POSITIONS = 576
"""Self-attention is kept at the finest grid of at most this many positions (24 x 24): n x n float32, at most 1.3 MB."""


@dataclass(frozen=True)
class StoreOptions:
    """What is kept beyond the sums of Eq. 6.

    Attributes:
        layers: the layers apart.
        steps: the steps apart.
        heads: the heads apart (summed over steps; the aggregation "castorini" needs it).
        self_attention: the attention of the picture to itself.
    """

    layers: bool = False
    steps: bool = False
    heads: bool = False
    self_attention: bool = False


@dataclass(frozen=True, eq=False)
class BatchSlice:
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
    def index(self) -> slice:
        return slice(self.start, self.stop)


@dataclass
class GridSums:
    """The sums of Eq. 6 at one resolution and in one area of the picture, `[2, images, n, channels]` float32.

    Attributes:
        both: `total` over heads, layers and steps, and `late`: the same with step j = 1, 2, … weighted by j squared.
        num_terms: heads x layers x steps that went into them.
    """

    grid: Grid
    area: Area
    both: Tensor
    num_terms: int = 0

    @property
    def total(self) -> Tensor:
        return self.both[0]

    @property
    def time_weighted(self) -> Tensor:
        return self.both[1]


@dataclass
class StepBuffer:
    """What is dirty in this step: of a resolution, or of a layer where layers are kept apart.

    Attributes:
        now: running sum of this step `[images, n, channels]`, of what did not wait in a batch.
        dirty: whether there is anything in it.
        into: where the step goes when it is done.
        total: this layer's own sum over steps, where steps are not kept.
        steps: float16 `[images, n, words]` each.
    """

    grid: Grid
    area: Area
    layer: int | None
    now: Tensor
    into: GridSums
    total: Tensor | None
    dirty: bool = False
    step_terms: int = 0
    steps: list[Tensor] = field(default_factory=list)


@dataclass
class LayerPlan:
    """What is the same for one layer in every step: its sum, its selection `[images, keys, channels]`,
    the batch it may wait in."""

    q_shape: torch.Size
    k_shape: torch.Size
    buffer: StepBuffer
    selection: Tensor
    batch: LayerBatch | None


class Accumulator:
    """GridSums attention while the model samples. Small layers wait in batches (see `batch`) unless layers are kept apart.

    Args:
        index: which rows of the model's batch are the pictures, unless a call says otherwise.
        select: gives, for a context of that many keys and the number of a prompt (0 where there is one), the selection
            `[images, keys, channels]` float32 (see `Prompt.selection`).
        keep: what to keep apart.
    """

    def __init__(self, index: slice, select: Callable[[int, int], Tensor], keep: StoreOptions) -> None:
        self.batch_slice = BatchSlice(index.start, index.stop)
        self.images: int = index.stop - index.start
        self.keep = keep
        self.step_count = 0
        self._sums: dict[tuple[Grid, Area], GridSums] = {}
        self.buffers: dict[tuple[Grid | int, Area], StepBuffer] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[int, Tensor] = {}
        self._self_attention: Tensor | None = None
        self.self_grid: Grid | None = None
        self._select = select
        self._selections: dict[tuple[int, int, torch.device], Tensor] = {}
        self._batches: dict[tuple[Any, ...], LayerBatch] = {}
        self._plans: dict[tuple[int, BatchSlice], LayerPlan] = {}

    @property
    def sums(self) -> dict[tuple[Grid, Area], GridSums]:
        """The sums of all finished steps."""
        self._flush()
        return self._sums

    @property
    def self_attention(self) -> Tensor | None:
        """The attention of the picture to itself, `[images, n, n]` float32 (query, key), summed over heads, layers, steps."""
        self._flush()
        return self._self_attention

    def _flush(self) -> None:
        """Finished steps may still wait in batches."""
        for batch in self._batches.values():
            batch.flush()

    def add_cross(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        batch_slice: BatchSlice | None = None,
    ) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Raises:
            ValueError: the grid does not cover the queries.
        """
        batch_slice = batch_slice or self.batch_slice
        plan = self._plans.get((layer, batch_slice))
        if plan is None or plan.q_shape != q.shape or plan.k_shape != k.shape:
            plan = self._plans[layer, batch_slice] = self._new_plan(layer, grid, q, k, heads, scale, batch_slice)
        plan.buffer.step_terms += heads
        if plan.batch is not None:
            plan.batch.add(q, k)
            return
        plan.buffer.dirty = True
        q, k = split_heads(q[batch_slice.index], heads), split_heads(k[batch_slice.index], heads)
        add_head_sum(plan.buffer.now, q, k, plan.selection, heads, scale)
        if self.keep.heads:
            self._add_heads(layer, q, k, plan.selection, heads, scale)

    def _new_plan(
        self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, batch_slice: BatchSlice
    ) -> LayerPlan:
        n, keys = q.shape[1], k.shape[1]
        if grid[0] * grid[1] != n:
            raise ValueError(f"{n} queries do not fill a grid of {grid[0]} x {grid[1]}")
        selection = self._selection(keys, batch_slice.part, q.device)
        buffer = self._buffer(layer, grid, batch_slice.area, selection)
        batch = None
        if not (self.keep.layers or self.keep.heads):

            def flush_fn(q: Tensor, k: Tensor, weights: Tensor | None) -> None:
                if weights is None:
                    buffer.dirty = True
                    add_head_sum(buffer.now, q, k, selection, heads, scale)
                else:
                    add_weighted_head_sums(buffer.into.both, q, k, selection, heads, scale, weights)

            batch = self._batch_of(("text", grid), q, k, heads, scale, batch_slice, flush_fn)
        return LayerPlan(q.shape, k.shape, buffer, selection, batch)

    def _batch_of(
        self, what: object, q: Tensor, k: Tensor, heads: int, scale: float, batch_slice: BatchSlice, flush_fn: FlushFn
    ) -> LayerBatch | None:
        """The batch of layers of one shape; None where they are too large to wait."""
        key = (what, q.shape, k.shape, heads, scale, batch_slice)
        if key not in self._batches:
            self._batches[key] = LayerBatch(q.shape, k.shape, batch_slice.index, heads, q.device, flush_fn, not self.keep.steps)
        batch = self._batches[key]
        return batch if batch.enabled else None

    def add_joint(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        batch_slice: BatchSlice,
        text: slice,
        bias: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> None:
        """One joint-attention layer of one step, its rows cut to `batch_slice` already; see `attention.add_joint`."""
        selection = self._selection(text.stop - text.start, batch_slice.part, q.device)
        buffer = self._buffer(layer, grid, batch_slice.area, selection)
        buffer.step_terms, buffer.dirty = buffer.step_terms + heads, True
        add_joint(buffer.now, q, k, selection, heads, scale, text, bias, lse)

    @property
    def keeps_self_attention(self) -> bool:
        """Whether self-attention is kept in this step: in the first, fourth, ninth, sixteenth, …

        It changes slowly and is the dearest part of recording; runs of few steps need the early ones.
        """
        number = self.step_count + 1
        return self.keep.self_attention and math.isqrt(number) ** 2 == number

    def wants_self(self, grid: Grid) -> bool:
        """Whether `add_self` would keep self-attention of this grid in this step: only of the finest grid of bounded size."""
        if not self.keeps_self_attention:
            return False
        return grid == self.self_grid if self.self_grid else grid[0] * grid[1] <= SELF_ATTENTION_POSITIONS

    def add_self(
        self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, batch_slice: BatchSlice | None = None
    ) -> None:
        """One self-attention layer of one step, q and k `[batch, n, heads * d]`, if it is wanted (see `wants_self`)."""
        if not self.wants_self(grid):
            return
        if self._self_attention is None:
            n = q.shape[1]
            self.self_grid, self._self_attention = grid, torch.zeros(self.images, n, n, device=q.device)
        into = self._self_attention
        batch_slice = batch_slice or self.batch_slice

        def flush_fn(q: Tensor, k: Tensor, weights: Tensor | None) -> None:
            add_self_attention(into, q, k, heads, scale)

        batch = None
        if not (self.keep.layers or self.keep.heads):
            batch = self._batch_of("self", q, k, heads, scale, batch_slice, flush_fn)
        if batch is not None:
            batch.add(q, k)
        else:
            flush_fn(split_heads(q[batch_slice.index], heads), split_heads(k[batch_slice.index], heads), None)

    def end_step(self) -> None:
        """Fold the step into the sums; an interrupted step is simply never folded."""
        self.step_count += 1
        for batch in self._batches.values():
            batch.end_step(self.step_count)
        for buffer in self.buffers.values():
            buffer.into.num_terms, buffer.step_terms = buffer.into.num_terms + buffer.step_terms, 0
            if buffer.total is not None:
                buffer.total += buffer.now
            if self.keep.steps:
                # Rows 1..-2 are the words: the detail of start, end and padding would cost a fifth more memory.
                buffer.steps.append(buffer.now[..., 1:-2].half())
        dirty = [buffer for buffer in self.buffers.values() if buffer.dirty]
        # Where layers are kept apart, several buffers go into the same sums, which one launch must not do.
        for buffers in filter(None, [[buffer] for buffer in dirty] if self.keep.layers else [dirty]):
            now = [buffer.now for buffer in buffers]
            torch._foreach_add_([buffer.into.total for buffer in buffers], now)
            torch._foreach_add_([buffer.into.time_weighted for buffer in buffers], now, alpha=self.step_count**2)
            torch._foreach_zero_(now)
        for buffer in dirty:
            buffer.dirty = False

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        self._flush()
        for buffer in self.buffers.values():
            buffer.now = buffer.now.new_empty(0)
        self._selections.clear()
        self._batches.clear()
        self._plans.clear()

    def _buffer(self, layer: int, grid: Grid, area: Area, selection: Tensor) -> StepBuffer:
        self.grids.setdefault(layer, grid)
        key: tuple[Grid | int, Area] = (layer if self.keep.layers else grid, area)
        if key not in self.buffers:
            shape = (self.images, grid[0] * grid[1], selection.shape[-1])
            if (grid, area) not in self._sums:
                self._sums[grid, area] = GridSums(grid, area, torch.zeros(2, *shape, device=selection.device))
            now = torch.zeros(shape, device=selection.device)
            own = torch.zeros_like(now) if self.keep.layers and not self.keep.steps else None
            buffer = StepBuffer(grid, area, layer if self.keep.layers else None, now, self._sums[grid, area], own)
            if self.keep.steps:  # a prompt that comes in late was not there before
                buffer.steps = [now[..., 1:-2].half()] * self.step_count
            self.buffers[key] = buffer
        return self.buffers[key]

    def _add_heads(self, layer: int, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float) -> None:
        if layer not in self.heads:
            self.heads[layer] = torch.zeros(self.images * heads, q.shape[1], selection.shape[-1], device=q.device)
        add_per_head(self.heads[layer], q, k, selection, heads, scale)

    def _selection(self, keys: int, part: int, device: torch.device) -> Tensor:
        known = (keys, part, device)
        if known not in self._selections:
            self._selections[known] = self._select(keys, part).to(device)
        return self._selections[known]
