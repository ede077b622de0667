"""Steps whose keys stay the same: the keys of all layers of one shape held once, the queries of several steps beside them.

A text's keys do not depend on the picture: from step to step they are the same numbers, computed anew. Of a small layer they
are most of what would be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..errors import NothingRecorded

_STEPS = 8
"""At most so many steps wait for each other."""


class Held(NamedTuple):
    """Queries and keys of one layer as the model gave them out, and how often each had been written to then.

    Attributes:
        layer: its number.
        keys: stays the same object as long as the keys of this layer are the same numbers; None where nobody knows.
    """

    q: Tensor
    k: Tensor
    q_version: int
    k_version: int
    layer: int
    keys: object | None

    @property
    def untouched(self) -> bool:
        return self.q._version == self.q_version and self.k._version == self.k_version


class StepTarget(Protocol):
    """What sums the steps that waited."""

    @property
    def heads(self) -> int:
        """Attention heads of one layer."""

    def add_steps(self, q: Tensor, k: Tensor, weights: Tensor) -> None:
        """q `[layers * images * heads, steps * n, d]`, k `[layers * images * heads, keys, d]`; `weights` `[2, steps]`: 1 and
        the square of the step's number."""


class SharedKeys:
    """Finished steps of the same layers, as long as their keys stay the same.

    Args:
        index: the rows of the batch that are recorded.
        target: takes what waited.
        budget: bytes that the queries of the waiting steps, and the scores of one layer of them, may take each.
    """

    def __init__(self, index: slice, target: StepTarget, budget: int) -> None:
        self._index, self._target, self._budget = index, target, budget
        self._known: tuple[object, tuple[int, ...]] | None = None
        self._k = self._q = self._weights = torch.empty(0)
        self._last: list[Tensor] = []
        self._steps = self._room = 0

    def take(self, held: Sequence[Held], number: int) -> bool:
        """The layers of step `number` (from 1); False where they are better worked off in another way."""
        keys = held[0].keys
        if keys is None or any(one.keys is not keys for one in held):
            return False
        known = (keys, tuple(one.layer for one in held))
        if self._known is None or self._known[0] is not keys or self._known[1] != known[1]:
            self.flush()
            self.prove()
            self._start(held)
            self._known = known
        if self._room < 2:
            return False
        self._q[:, :, :, self._steps].copy_(self._by_heads([one.q for one in held]))
        self._weights[1, self._steps] = number**2
        self._last = [one.k for one in held]
        self._steps += 1
        if self._steps == self._room:
            self.flush()
        return True

    def flush(self) -> None:
        """Work off what waits."""
        if self._steps:
            with torch.inference_mode(self._q.is_inference()):
                q = self._q[:, :, :, : self._steps].flatten(0, 2).flatten(1, 2)
                self._target.add_steps(q, self._k.flatten(0, 2), self._weights[:, : self._steps])
        self._steps = 0

    def prove(self) -> None:
        """The keys of the last step are still those that are held: nobody changed the weights where no counter tells.

        Raises:
            NothingRecorded: they are not.
        """
        last, self._last = self._last, []
        if last and not torch.equal(self._by_heads(last), self._k):
            raise NothingRecorded("something changed the weights of the model's keys in the middle of the run")

    def _start(self, held: Sequence[Held]) -> None:
        q, layers, heads = held[0].q, len(held), self._target.heads
        images, (_, n, width) = self._index.stop - self._index.start, q.shape
        a_step = 4 * max(layers * images * width * n, images * heads * n * held[0].k.shape[1])
        self._room = min(_STEPS, self._budget // a_step)
        if self._room < 2:
            return
        self._k = self._by_heads([one.k for one in held]).float().contiguous()
        self._q = torch.empty(layers, images, heads, self._room, n, width // heads, device=q.device)
        self._weights = torch.ones(2, self._room, device=q.device)

    def _by_heads(self, tensors: list[Tensor]) -> Tensor:
        """The recorded rows of several layers' `[batch, n, heads * d]` as `[layers, images, heads, n, d]`."""
        with torch.no_grad():
            stacked = stacked_rows(tensors, self._index)
            return stacked.unflatten(-1, (self._target.heads, -1)).transpose(2, 3)


def stacked_rows(tensors: list[Tensor], index: slice) -> Tensor:
    """The rows `index` of several tensors `[batch, …]` in one, `[tensors, rows, …]`."""
    # Taking few rows out of each tensor costs a view each; out of all of them together, once.
    if tensors[0].shape[0] > 2 * (index.stop - index.start):
        return torch.stack([x[index] for x in tensors])
    return torch.stack(tensors)[:, index]
