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
        work_off: takes q `[layers * images * heads, n, d]` and k `[layers * images * heads, keys, d]`.
    """

    def __init__(
        self,
        q_shape: torch.Size,
        k_shape: torch.Size,
        rows: slice,
        heads: int,
        device: torch.device,
        work_off: Callable[[Tensor, Tensor], None],
    ) -> None:
        self._work_off = work_off
        images = rows.stop - rows.start
        scores = images * heads * q_shape[1] * k_shape[1]
        width = images * q_shape[2]
        room = POOL_BYTES // (4 * (width * (q_shape[1] + k_shape[1]) + 2 * scores))
        self._room = 0 if room < _FEW or (device.type == "cpu" and scores > _CPU_SCORES) else min(_MANY, room)
        self._q = _Stack(q_shape, rows, heads, device, self._room)
        self._keys = [_Stack(k_shape, rows, heads, device, self._room)]
        self._at = self._waiting = 0

    @property
    def worth_it(self) -> bool:
        """Whether enough layers fit into the budget."""
        return self._room > 0

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
            _copy([self._q.to_copy(at, q)])
        else:
            _copy([self._q.to_copy(at, q), keys.to_copy(at, k)])
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
            self._work_off(self._q.heads(layers), self._keys[self._at].heads(layers))


class _Stack:
    """Room for the recorded rows of the queries or the keys of layers of one shape, `[layers, images, heads, n, d]`."""

    def __init__(self, shape: torch.Size, rows: slice, heads: int, device: torch.device, room: int) -> None:
        self._given = shape, rows, heads, device, room
        images, (_, n, width) = rows.stop - rows.start, shape
        self._rows, self._shape = rows, (images, n, heads, width // heads)
        self._strides, self._first = (n * width, width, width // heads, 1), rows.start * n * width
        self._all = torch.empty(room, images, heads, n, width // heads, device=device)
        self._places = [layer.transpose(1, 2) for layer in self._all]
        self._heads: dict[int, Tensor] = {}
        self.known: list[tuple[int, int | None] | None] = [None] * room

    def another(self) -> _Stack:
        """As much room again."""
        return _Stack(*self._given)

    def to_copy(self, at: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(where one layer's tensor `[batch, n, heads * d]` goes, what of it goes there), `[images, n, heads, d]`."""
        if x.is_contiguous():  # one view instead of two, for every layer of every step
            return self._places[at], x.as_strided(self._shape, self._strides, x.storage_offset() + self._first)
        return self._places[at], x[self._rows].unflatten(-1, self._shape[2:])

    def heads(self, layers: int) -> Tensor:
        """The first layers, `[layers * images * heads, n, d]`."""
        if layers not in self._heads:
            self._heads[layers] = self._all[:layers].flatten(0, 2)
        return self._heads[layers]


def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy into the first of each pair the second: at one call where PyTorch can (from 2.1 on)."""
    if len(pairs) > 1 and hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_([place for place, _ in pairs], [x for _, x in pairs])
    else:
        for place, x in pairs:
            place.copy_(x)
