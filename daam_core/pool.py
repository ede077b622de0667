"""Small attention layers of one shape, gathered and worked off together.

One by one they would cost a small model more time than its own work: most of it is the start of kernels, not their run.
They are copied: a model may write into its queries, and what it lets go of is still warm in the cache when it asks again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

POOL_BYTES = 48 * 2**20
"""Upper bound of what the layers of one shape take together: their copies and the temporaries of working them off."""
_CPU_SCORES = 2**17  # a processor is busy longer with a layer of more scores than with the start of its kernels
_FEW = 4  # fewer layers than these are not worth the copies
_MANY = 128  # SDXL has 70


class Pool:
    """Waiting layers: side by side they are one layer of more heads.

    Args:
        q_shape, k_shape: of one layer's queries `[batch, n, heads * d]` and keys `[batch, keys, heads * d]`.
        rows: the rows of the batch that are recorded.
        heads: attention heads of one layer.
        device: where the copies lie, float32.
        work_off: takes q `[images, layers * heads, n, d]`, k `[images, layers * heads, keys, d]` and layers * heads.
    """

    def __init__(
        self,
        q_shape: torch.Size,
        k_shape: torch.Size,
        rows: slice,
        heads: int,
        device: torch.device,
        work_off: Callable[[Tensor, Tensor, int], None],
    ) -> None:
        self._work_off = work_off
        scores = (rows.stop - rows.start) * heads * q_shape[1] * k_shape[1]
        floats = 2 * (q_shape.numel() + k_shape.numel() + scores)
        self._room = 0 if device.type == "cpu" and scores > _CPU_SCORES else min(_MANY, POOL_BYTES // (4 * floats))
        self._q = _Stack(q_shape, rows, heads, device, self._room)
        self._keys = [_Stack(k_shape, rows, heads, device, self._room)]
        self._at = self._waiting = 0

    @property
    def worth_it(self) -> bool:
        """Whether enough layers fit into the budget."""
        return self._room >= _FEW

    def add(self, layer: int, q: Tensor, k: Tensor, edition: int | None = None) -> None:
        """Let a layer wait; when there is no more room, all are worked off.

        Args:
            layer: whose queries and keys these are.
            q, k: in the shapes of the pool, any float dtype.
            edition: equal numbers stand for equal keys of this layer, which are then not copied again.
        """
        if q.requires_grad or k.requires_grad:
            q, k = q.detach(), k.detach()
        if self._at == len(self._keys):
            self._keys.append(self._keys[0].another())
        at, keys = self._waiting, self._keys[self._at]
        if edition is not None and keys.known[at] == (layer, edition):
            _copy([self._q.place(at)], [q])
        else:
            _copy([self._q.place(at), keys.place(at)], [q, k])
            keys.known[at] = (layer, edition)
        self._waiting = at + 1
        if self._waiting == self._room:
            self._empty()
            self._at += edition is not None  # keys that never come back need no room of their own

    def end_step(self) -> None:
        """Work off what waits; the next layer is the first of its step."""
        self._empty()
        self._at = 0

    def _empty(self) -> None:
        layers, self._waiting = self._waiting, 0
        if layers:
            q, k = self._q.heads(layers), self._keys[self._at].heads(layers)
            self._work_off(q, k, q.shape[1])


class _Stack:
    """Room for the queries or the keys of layers of one shape, `[layers, batch, n, heads * d]`."""

    def __init__(self, shape: torch.Size, rows: slice, heads: int, device: torch.device, room: int) -> None:
        self._shape, self._rows, self._heads, self._device, self._room = shape, rows, heads, device, room
        self._places: list[Tensor] = []
        self._apart: Tensor | None = None
        self._ready: Tensor | None = None
        self._stale = True
        self.known: list[tuple[int, int | None] | None] = [None] * room

    def another(self) -> _Stack:
        """As much room again."""
        return _Stack(self._shape, self._rows, self._heads, self._device, self._room)

    def place(self, at: int) -> Tensor:
        """Where one layer's tensor goes."""
        if not self._places:
            self._all = torch.empty(self._room, *self._shape, device=self._device)
            self._places = list(self._all)
        self._stale = True
        return self._places[at]

    def heads(self, layers: int) -> Tensor:
        """The recorded rows of the first layers, `[images, layers * heads, n, d]`; valid until it is asked for again."""
        if self._apart is None or self._ready is None or self._apart.shape[1] != layers:
            self._apart = self._all[:layers, self._rows].unflatten(-1, (self._heads, -1)).permute(1, 0, 3, 2, 4)
            self._ready, self._stale = torch.empty(self._apart.shape, device=self._device), True
        if self._stale:
            self._ready.copy_(self._apart)
            self._stale = False
        return self._ready.flatten(1, 2)


def _copy(places: list[Tensor], tensors: list[Tensor]) -> None:
    """Copy each tensor to its place: both in one launch where PyTorch can (from 2.1 on)."""
    if len(places) > 1 and hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(places, tensors)
    else:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
