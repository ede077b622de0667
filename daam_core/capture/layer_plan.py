"""Where one attention layer's queries and keys go in every step: worked out once, looked up by the layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.scores import (
    add_head_sum,
    add_per_head,
    add_self_attention,
    add_step_sums,
    add_weighted_head_sums,
    split_heads,
)
from ..types import Grid
from .buffers import StepBuffer
from .layer_batching import LayerBatch


@dataclass(frozen=True, eq=False)
class CrossSums:
    """Takes cross-attention: head sums into the step's buffer, or weighted by steps straight into the sums over steps.

    Attributes:
        buffer: of the layer's resolution.
        selection: float32 `[images, keys, channels]`, see `Prompt.selection`.
        heads, scale: of the layer.
        per_head: `[images * heads, n, channels]` where heads are kept apart.
    """

    buffer: StepBuffer
    selection: Tensor
    heads: int
    scale: float
    per_head: Tensor | None = None

    def add(self, q: Tensor, k: Tensor, weights: Tensor | None) -> None:
        """See `layer_batching.Target.add`."""
        if weights is not None:
            add_weighted_head_sums(self.buffer.into.both, q, k, self.selection, self.heads, self.scale, weights)
            return
        self.buffer.dirty = True
        add_head_sum(self.buffer.now, q, k, self.selection, self.heads, self.scale)
        if self.per_head is not None:
            add_per_head(self.per_head, q, k, self.selection, self.heads, self.scale)

    def add_steps(self, q: Tensor, k: Tensor, weights: Tensor, scratch: Tensor | None) -> None:
        """See `shared_keys.StepTarget.add_steps`."""
        add_step_sums(self.buffer.into.both, q, k, self.selection, self.heads, self.scale, weights, scratch)

    def count(self, layers: int) -> None:
        """So many layers more of this step."""
        self.buffer.step_terms += layers * self.heads


@dataclass(frozen=True, eq=False)
class SelfSums:
    """Takes self-attention: `into` `[images, n, n]` float32 (query, key), summed over heads, layers and steps alike."""

    into: Tensor
    heads: int
    scale: float

    def add(self, q: Tensor, k: Tensor, _weights: Tensor | None) -> None:
        """See `layer_batching.Target.add`."""
        add_self_attention(self.into, q, k, self.heads, self.scale)

    def count(self, layers: int) -> None:
        """Self-attention is divided by its own row sums in the end, so its terms are not counted."""


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """The way of one layer's attention while its shapes stay the same.

    Attributes:
        q_shape, k_shape: queries `[batch, n, heads * d]`, keys `[batch, keys, heads * d]`.
        dtype: of the queries.
        grid: (h, w) of the queries.
        index: rows of the batch that are recorded.
        target: what sums it.
        batch: where small layers wait for each other, None for a large one or one that is kept apart.
        layer: its number.
    """

    q_shape: torch.Size
    k_shape: torch.Size
    dtype: torch.dtype
    grid: Grid
    index: slice
    target: CrossSums | SelfSums
    batch: LayerBatch | None
    layer: int = -1

    def fits(self, grid: Grid, q: Tensor, k: Tensor) -> bool:
        """Whether these are queries and keys of the planned shapes and precision."""
        return q.shape == self.q_shape and k.shape == self.k_shape and grid == self.grid and q.dtype == self.dtype

    def add(self, q: Tensor, k: Tensor, keys: object | None = None) -> None:
        """The layer's attention of one step; `keys` tells whether its keys are those of an earlier step, see `Held`."""
        if self.batch is not None:
            self.batch.add(q, k, self.layer, keys)
        else:
            self.target.count(1)
            heads = self.target.heads
            self.target.add(split_heads(q[self.index], heads), split_heads(k[self.index], heads), None)
