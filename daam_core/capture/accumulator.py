"""Running sums of one side (prompt or negative prompt): per picture, resolution and, when asked, layer, step, head.

Everything stays on the model's device and is flat in steps and layers unless detail is asked for. Bicubic upscaling is
linear, so Eq. 6 loses nothing when heads, layers and steps are summed at native resolution first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attention.joint import add_joint
from ..errors import NothingRecorded
from ..maps.frames import Frames, frames_within, same_frames
from ..types import Grid
from .attention_call import AttentionCall
from .buffers import BatchSlice, GridSums, StepBuffer, StoreOptions
from .call_batching import HeldCalls
from .joint_batching import JointBatch, JointPlace, JointSums
from .layer_batching import LayerBatch
from .layer_plan import CrossSums, LayerPlan, SelfSums
from .output_sums import OutputSums
from .region import Area
from .relation_sums import RelationSums
from .self_attention_sums import SelfAttentionSums, is_kept_in, is_turn_of
from .step_buffers import StepBuffers

_BATCHES = 16
"""Layers of at most so many shapes and places wait, each in up to `BATCH_BYTES`: a picture in many views has many places."""


class Accumulator:
    """Sums attention while the model samples. Small layers wait in batches (see `LayerBatch`) unless layers are kept apart.

    Args:
        index: which rows of the model's batch are the pictures, unless a call says otherwise.
        select: gives, for a context of that many keys and the number of a prompt (0 where there is one), the selection
            `[images, keys, channels]` float32 (see `Prompt.selection`).
        keep: what to keep apart.
        hold: whether small layers may be held by reference until the step ends, see `LayerBatch`.
    """

    def __init__(self, index: slice, select: Callable[[int, int], Tensor], keep: StoreOptions, hold: bool = False) -> None:
        self.batch_slice = BatchSlice(index.start, index.stop)
        self.images: int = index.stop - index.start
        self.keep, self._hold = keep, hold
        self.step_count = 0
        self._stored = StepBuffers(self.images, keep)
        self._own = SelfAttentionSums(self.images)
        self.relations = RelationSums(keep.relations)
        self.outputs = OutputSums(self.images) if keep.output else None
        self._select = select
        self._selections: dict[tuple[int, int, torch.device], Tensor] = {}
        self._batches: dict[tuple[object, ...], LayerBatch] = {}
        self._joint_batches: dict[tuple[object, ...], JointBatch] = {}
        self._plans: dict[tuple[int, BatchSlice], LayerPlan] = {}
        self._self_plans: dict[tuple[torch.Size, BatchSlice], LayerPlan] = {}

    @property
    def sums(self) -> dict[tuple[Grid, Area], GridSums]:
        """The sums of all finished steps."""
        self._flush()
        return self._stored.sums

    @property
    def buffers(self) -> dict[tuple[Grid | int, Area], StepBuffer]:
        """What was recorded in the present step, see `StepBuffers`."""
        return self._stored.buffers

    @property
    def grids(self) -> dict[int, Grid]:
        """(h, w) of the layers that attended, by their numbers."""
        return self._stored.grids

    @property
    def heads(self) -> dict[tuple[int, Grid, Area], Tensor]:
        """The sums of each head apart, see `StepBuffers`."""
        return self._stored.heads

    @property
    def self_attention(self) -> Tensor | None:
        """The attention of the picture to itself, `[images, n, n]` float32 (query, key), summed over heads, layers, steps."""
        self._flush()
        return self._own.maps

    @property
    def self_grid(self) -> Grid | None:
        """The grid of `self_attention`, None before there is any."""
        return self._own.grid

    def _flush(self) -> None:
        """Finished steps may still wait in batches."""
        for batch in self._waiting():
            batch.flush()

    def _waiting(self) -> Iterator[LayerBatch | JointBatch]:
        return itertools.chain(self._batches.values(), self._joint_batches.values())

    def add_cross(
        self,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float,
        batch_slice: BatchSlice | None = None,
        keys: object | None = None,
    ) -> LayerPlan:
        """One cross-attention layer of one step: q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`.

        Gives the layer's plan, which takes the next steps' queries and keys as long as they fit it.

        Args:
            keys: the same object as in an earlier step where the layer's keys are the same numbers as then; None where nobody
                knows.

        Raises:
            NothingRecorded: the grid does not cover the queries, or the batch has not the rows that are recorded.
        """
        where = batch_slice or self.batch_slice
        plan = self._plans.get((layer, where))
        if plan is None or not plan.fits(grid, q, k):
            plan = self._plans[layer, where] = self._cross_plan(layer, grid, q, k, heads, scale, where)
        plan.add(q, k, keys)
        return plan

    def _cross_plan(
        self, layer: int, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, where: BatchSlice
    ) -> LayerPlan:
        if grid[0] * grid[1] != q.shape[1]:
            raise NothingRecorded(
                f"a layer attended from {q.shape[1]} positions where the picture has {grid[0]} x {grid[1]} at its size"
            )
        selection = self._selection(k.shape[1], where.part, q.device)
        per_head = self._stored.per_head(layer, heads, grid, where.area, selection) if self.keep.heads else None
        buffer = self._stored.buffer(layer, grid, where.area, selection, self.step_count)
        target = CrossSums(buffer, selection, heads, scale, per_head)
        return self._plan("text", grid, q, k, target, where, layer)

    def _plan(
        self, what: str, grid: Grid, q: Tensor, k: Tensor, target: CrossSums | SelfSums, where: BatchSlice, layer: int = -1
    ) -> LayerPlan:
        """The plan of a layer; layers of one kind and shape share a batch, and large ones have none."""
        if where.stop > min(q.shape[0], k.shape[0]):
            raise NothingRecorded(
                f"the model was called with {min(q.shape[0], k.shape[0])} rows where at least {where.stop} were expected: "
                "guidance or the batch changed while it was sampled"
            )
        batch = None
        if not (self.keep.layers or self.keep.heads):
            key = (what, grid, q.shape, k.shape, q.dtype, target.heads, target.scale, where)
            if key not in self._batches and _enabled(self._batches) < _BATCHES:
                self._batches[key] = LayerBatch(
                    q,
                    k,
                    where.index,
                    target,
                    not self.keep.steps,
                    self._hold,
                    target if isinstance(target, CrossSums) else None,
                )
            found = self._batches.get(key)
            batch = found if found is not None and found.enabled else None
        return LayerPlan(q.shape, k.shape, q.dtype, grid, where.index, target, batch, layer)

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
        frame: int = 0,
        frames: int = 1,
    ) -> None:
        """One joint-attention layer of one step, its rows cut to `batch_slice` already; see `joint.add_joint`.

        Args:
            q: the queries of a picture, or of one or more whole frames of a video, one after the other.
            frame: the first of these frames.
            frames: latent frames of the whole video, 1 for a picture. They are kept apart as far as there is room for them, and
                summed where layers are kept apart. Heads that are kept apart are summed over frames.

        Raises:
            NothingRecorded: the video has another number of frames than it had before.
        """
        selection = self._selection(text.stop - text.start, batch_slice.part, q.device)
        n = grid[0] * grid[1]
        kept = None
        if frames > 1:
            kept = Frames(((0, frames),), frames) if self.keep.layers else frames_within(frames, n, selection.shape[-1])
        buffer = self._stored.buffer(layer, grid, batch_slice.area, selection, self.step_count, kept)
        same_frames([buffer.into.frames, kept])
        # Frames are added one by one where each has a call of its own; a position sees the layer once.
        buffer.step_terms, buffer.dirty = buffer.step_terms + (heads if frame == 0 else 0), True
        per_head = self._stored.per_head(layer, heads, grid, batch_slice.area, selection) if self.keep.heads else None
        if (kept is None or len(kept) == frames) and (per_head is None or q.shape[-2] == n):
            into = buffer.now[:, frame * n : frame * n + q.shape[-2]]
            add_joint(into, q, k, selection, heads, scale, text, bias, lse, per_head=per_head)
            return
        assert kept is not None
        for i in range(q.shape[-2] // n):
            own = next(number for number, (_, stop) in enumerate(kept.spans) if frame + i < stop)
            cut = slice(i * n, (i + 1) * n)
            own_bias = bias if bias is None or bias.shape[-2] == 1 else bias[..., cut, :]
            own_lse = None if lse is None else lse[..., cut]
            into = buffer.now[:, own * n : (own + 1) * n]
            add_joint(into, q[..., cut, :], k, selection, heads, scale, text, own_bias, own_lse, per_head=per_head)

    def joint_batch(self, grid: Grid, calls: HeldCalls, place: JointPlace, where: BatchSlice) -> JointBatch | None:
        """Where joint attention of one picture, all layers of a step side by side, waits for other steps; None where it does
        not: what is kept apart, or does not fit, is for `add_joint`."""
        if self.keep.layers or self.keep.steps or self.keep.heads or self.images > 1:
            return None
        key = grid, calls.kind, calls.layers, place.index, place.picture.start, place.text.start, place.text.stop, where
        batch = self._joint_batches.get(key)
        if batch is None:
            if _enabled(self._joint_batches) >= _BATCHES:
                return None
            selection = self._selection(place.text.stop - place.text.start, where.part, calls.q.device)
            buffer = self._stored.buffer(calls.layers[0], grid, where.area, selection, self.step_count)
            batch = self._joint_batches[key] = JointBatch(calls, JointSums(buffer, selection, calls.kind, place))
            self.note_layers(calls.layers, grid)
        return batch if batch.enabled else None

    def note_layers(self, layers: Sequence[int], grid: Grid) -> None:
        """Layers whose attention came side by side, as that of one layer; see `call_batching`."""
        for layer in layers:
            self._stored.grids.setdefault(layer, grid)

    def add_text_queries(self, grid: Grid, part: AttentionCall, batch_slice: BatchSlice, picture: slice, text: slice) -> None:
        """What the text attends to in one joint layer, its rows cut to `batch_slice` already; see `RelationSums`."""
        selection = self._selection(text.stop - text.start, batch_slice.part, part.q.device)
        self.relations.add(grid, part, selection, picture, text)

    def add_output(self, layer: int, grid: Grid, output: Tensor, values: Tensor, where: BatchSlice) -> None:
        """What one layer gave out in one step, its rows cut to `where` already; see `OutputSums`."""
        if self.outputs is not None:
            selection = self._selection(values.shape[1], where.part, output.device)
            self.outputs.add(layer, grid, output, values, selection, where, self.step_count + 1)

    def wants_joint_self(self, layer: int) -> bool:
        """Whether `add_joint_self` is to be called for this layer in this step."""
        return self.keeps_self_attention and is_turn_of(layer, self.step_count + 1)

    def add_joint_self(
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
        """The picture's attention to itself in one joint layer; see `SelfAttentionSums.add_joint`."""
        self._own.add_joint(grid, q, k, heads, scale, picture, bias, lse, frames)

    @property
    def keeps_self_attention(self) -> bool:
        """Whether self-attention is kept in this step: in the first, fourth, ninth, sixteenth, …

        It changes slowly and is the dearest part of recording; runs of few steps need the early ones.
        """
        return self.keep.self_attention and is_kept_in(self.step_count + 1)

    def wants_self(self, grid: Grid) -> bool:
        """Whether `add_self` would keep self-attention of this grid in this step: only of the finest grid of bounded size."""
        return self.keeps_self_attention and self._own.fits(grid)

    def add_self(
        self, grid: Grid, q: Tensor, k: Tensor, heads: int, scale: float, batch_slice: BatchSlice | None = None
    ) -> None:
        """One self-attention layer of one step, q and k `[batch, n, heads * d]`, if it is wanted (see `wants_self`)."""
        if not self.wants_self(grid):
            return
        where = batch_slice or self.batch_slice
        key = (q.shape, where)
        plan = self._self_plans.get(key)
        if plan is None or not plan.fits(grid, q, k):
            target = SelfSums(self._own.of(grid, q.shape[1], q.device), heads, scale)
            plan = self._self_plans[key] = self._plan("self", grid, q, k, target, where)
        plan.add(q, k)

    def end_step(self) -> None:
        """Fold the step into the sums; an interrupted step is simply never folded."""
        self.step_count += 1
        for batch in self._waiting():
            batch.end_step(self.step_count)
        if self.outputs is not None:
            self.outputs.end_step(self.step_count)
        self._stored.end_step(self.step_count)

    def release(self) -> None:
        """Give back what only a running sampler needs."""
        self._flush()
        for batch in self._waiting():
            batch.prove()
        self._stored.release()
        if self.outputs is not None:
            self.outputs.release()
        self._selections.clear()
        self._batches.clear()
        for joint in self._joint_batches.values():
            joint.close()
        self._joint_batches.clear()
        self._plans.clear()
        self._self_plans.clear()

    def _selection(self, keys: int, part: int, device: torch.device) -> Tensor:
        known = (keys, part, device)
        if known not in self._selections:
            self._selections[known] = self._select(keys, part).to(device)
        return self._selections[known]


def _enabled(batches: Mapping[Any, LayerBatch] | Mapping[Any, JointBatch]) -> int:
    """How many of them may hold anything."""
    return sum(batch.enabled for batch in batches.values())
