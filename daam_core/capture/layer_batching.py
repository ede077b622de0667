"""Small attention layers of one shape, gathered and worked off together, over several steps where they may be.

One by one they would cost a small model more time than its own work: most of it is the start of kernels, not their run.
They are copied: a model may write into its queries, and what it lets go of is still warm in the cache when it asks again.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..attention.scores import CPU_BYTES

BATCH_BYTES = 16 * 2**20
"""Upper bound of what the layers of one shape take together: their copies and the temporaries of working them off.
On a processor it is `CPU_BYTES`."""
_CPU_SCORES = 2**17  # a processor is busy longer with a layer of more scores than with the start of its kernels
_FEW = 4  # fewer layers than these are not worth the copies
_MANY = 128  # SDXL has 70


class FlushFn(Protocol):
    """Where waiting layers go."""

    def __call__(self, q: Tensor, k: Tensor, weights: Tensor | None) -> None:
        """q `[layers * images * heads, n, d]`, k `[layers * images * heads, keys, d]`; `weights` `[2, layers]`, of layers
        of finished steps: 1 and the square of the step's number. None where the step is not over yet."""


class LayerBatch:
    """Waiting layers: side by side they are one layer of more heads.

    Args:
        q_shape, k_shape: of one layer's queries `[batch, n, heads * d]` and keys `[batch, keys, heads * d]`.
        index: the rows of the batch that are recorded.
        heads: attention heads of one layer.
        device: where the copies lie, float32.
        flush_fn: takes what waited.
        across_steps: finished steps wait too, until there is no room for another.
    """

    def __init__(
        self,
        q_shape: torch.Size,
        k_shape: torch.Size,
        index: slice,
        heads: int,
        device: torch.device,
        flush_fn: FlushFn,
        across_steps: bool,
    ) -> None:
        self._work_off, self._patient = flush_fn, across_steps
        images = index.stop - index.start
        scores, width = images * heads * q_shape[1] * k_shape[1], images * q_shape[2]
        on_cpu = device.type == "cpu"
        room = (CPU_BYTES if on_cpu else BATCH_BYTES) // (4 * (width * (q_shape[1] + k_shape[1]) + 2 * scores))
        self._room = 0 if room < _FEW or (on_cpu and scores > _CPU_SCORES) else min(_MANY, room)
        self._q = _Stack(q_shape, index, heads, device, self._room)
        self._k = _Stack(k_shape, index, heads, device, self._room)
        self._weights = torch.ones(2, self._room, device=device)
        self._at_once = hasattr(torch, "_foreach_copy_")  # from PyTorch 2.1 on
        self._finished = self._waiting = 0

    @property
    def enabled(self) -> bool:
        """Whether enough layers fit into the budget."""
        return self._room > 0

    def add(self, q: Tensor, k: Tensor) -> None:
        """Let a layer wait, q and k in the shapes of the batch, any float dtype; a full batch is worked off first."""
        if self._waiting == self._room:
            if self._finished:
                self.flush()
            else:
                self._empty(self._waiting, None)
        (q_place, q), (k_place, k) = self._q.to_copy(self._waiting, q), self._k.to_copy(self._waiting, k)
        if self._at_once:
            torch._foreach_copy_([q_place, k_place], [q, k])
        else:
            q_place.copy_(q)
            k_place.copy_(k)
        self._waiting += 1

    def end_step(self, number: int) -> None:
        """All that waits belongs to step `number` (from 1) or one before it."""
        if not self._patient:
            self._empty(self._waiting, None)
            return
        layers = self._waiting - self._finished
        if layers:
            self._weights[1, self._finished : self._waiting] = number**2
            self._finished = self._waiting
            if self._room - self._waiting < layers:
                self.flush()

    def flush(self) -> None:
        """Work off the finished steps; what was heard of the present one goes on waiting."""
        if self._finished:
            self._empty(self._finished, self._weights[:, : self._finished])

    def _empty(self, layers: int, weights: Tensor | None) -> None:
        if not layers:
            return
        # A run may be looked at outside the inference mode that it was sampled in.
        with torch.inference_mode(self._weights.is_inference()):
            self._work_off(self._q.heads(layers), self._k.heads(layers), weights)
            for stack in (self._q, self._k):
                stack.shift(layers, self._waiting)
        self._waiting, self._finished = self._waiting - layers, 0


class _Stack:
    """Room for the recorded rows of the queries or the keys of layers of one shape, `[layers, images, heads, n, d]`."""

    def __init__(self, shape: torch.Size, index: slice, heads: int, device: torch.device, room: int) -> None:
        images, (_, n, width) = index.stop - index.start, shape
        self._index, self._shape = index, (images, n, heads, width // heads)
        self._strides, self._first = (n * width, width, width // heads, 1), index.start * n * width
        self._all = torch.empty(room, images, heads, n, width // heads, device=device)
        self._places = [layer.transpose(1, 2) for layer in self._all]

    def to_copy(self, at: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(where one layer's tensor `[batch, n, heads * d]` goes, what of it goes there), `[images, n, heads, d]`."""
        x = x.detach() if x.requires_grad else x
        if x.is_contiguous():  # one view instead of two, for every layer of every step
            return self._places[at], x.as_strided(self._shape, self._strides, x.storage_offset() + self._first)
        return self._places[at], x[self._index].unflatten(-1, self._shape[2:])

    def heads(self, layers: int) -> Tensor:
        """The first layers, `[layers * images * heads, n, d]`."""
        return self._all[:layers].flatten(0, 2)

    def shift(self, start: int, stop: int) -> None:
        """Bring layers to the beginning."""
        if start < stop:
            self._all[: stop - start] = self._all[start:stop].clone()
