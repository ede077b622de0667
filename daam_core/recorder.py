"""Running sums of one run (prompt or negative prompt): per picture, resolution and, when asked, layer, step, head.

Everything stays on the model's device and is flat in steps and layers unless detail is asked for. Bicubic upscaling is
linear, so Eq. 6 loses nothing when heads, layers and steps are summed at native resolution first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .area import WHOLE, Area
from .attention import TEMPORARY_BYTES, add_head_sum, add_joint, add_per_head, add_self_attention

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


PROBED_LAYERS = 4
"""Layers worked off at once before layers are gathered, to see that the model leaves its queries as they are."""


@dataclass(frozen=True)
class Source:
    """Which part of a model's batch is recorded, and what it is about.

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


@dataclass(frozen=True)
class _Shape:
    """What layers that are worked off together share."""

    cross: bool
    grid: Grid
    keys: int
    heads: int
    scale: float
    source: Source


@dataclass
class _Pool:
    """Layers of one shape that wait to be worked off together: side by side they are one layer of more heads."""

    q: list[Tensor] = field(default_factory=list)
    k: list[Tensor] = field(default_factory=list)
    versions: int = 0
    bytes: int = 0


@dataclass
class _Slot:
    """One running sum: a grid's, or a layer's when layers are kept apart; one for each area of the picture."""

    grid: Grid
    area: Area
    layer: int | None
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
        self.slots: dict[tuple[Grid | int, Area], _Slot] = {}
        self.grids: dict[int, Grid] = {}
        self.heads: dict[int, Tensor] = {}
        self.self_attention: Tensor | None = None
        self.self_grid: Grid | None = None
        self._select = select
        self._selections: dict[tuple[int, int, torch.device], Tensor] = {}
        self._pools: dict[_Shape, _Pool] = {}
        self._probed = 0
        self._last: tuple[Tensor, int] | None = None
        self._in_place = False

    def add_cross(
        self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, source: Source | None = None
    ) -> None:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Raises:
            ValueError: the grid does not cover the queries.
        """
        n, keys = q.shape[1], k.shape[1]
        if grid[0] * grid[1] != n:
            raise ValueError(f"{n} queries do not fill a grid of {grid[0]} x {grid[1]}")
        source = source or self.source
        selection = self._selection(keys, source.part, q.device)
        slot = self._slot(layer, grid, source.area, selection)
        slot.terms_now += heads
        if self._gathered(_Shape(True, grid, keys, heads, scale, source), q, k):
            return
        q, k = q[source.rows], k[source.rows]
        add_head_sum(slot.now, q, k, selection, heads, scale)
        if self.keep.heads:
            self._add_heads(layer, q, k, selection, heads, scale)

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
        slot.terms_now += heads
        add_joint(slot.now, q, k, selection, heads, scale, text, bias, lse)

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
        cost = 2 * (q.nbytes + k.nbytes) + 8 * self.images * shape.heads * q.shape[1] * k.shape[1]
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
        if sum(q._version + k._version for q, k in zip(pool.q, pool.k, strict=True)) != pool.versions:
            raise RuntimeError("the model changed its queries or keys in place after they were made")
        source, heads = shape.source, shape.heads * len(pool.q)
        q, k = (torch.cat(x, -1)[source.rows] for x in (pool.q, pool.k))
        if shape.cross:
            selection = self._selection(shape.keys, source.part, q.device)
            add_head_sum(self.slots[shape.grid, source.area].now, q, k, selection, heads, shape.scale)
        elif self.self_attention is not None:
            add_self_attention(self.self_attention, q, k, heads, shape.scale)
        pool.q, pool.k, pool.versions, pool.bytes = [], [], 0, 0

    def add_self(self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, source: Source | None = None) -> None:
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
        source = source or self.source
        if not self._gathered(_Shape(False, grid, n, heads, scale, source), q, k):
            add_self_attention(self.self_attention, q[source.rows], k[source.rows], heads, scale)

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

    def _slot(self, layer: int, grid: Grid, area: Area, selection: Tensor) -> _Slot:
        self.grids.setdefault(layer, grid)
        key: tuple[Grid | int, Area] = (layer if self.keep.layers else grid, area)
        if key not in self.slots:
            shape = (self.images, grid[0] * grid[1], selection.shape[-1])
            now, total, late = (torch.zeros(shape, device=selection.device) for _ in range(3))
            slot = _Slot(grid, area, layer if self.keep.layers else None, now, total, late)
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
