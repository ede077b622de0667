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
_TURNS = 8
"""In each step the keys of one of so many layers are compared with those that are held."""


class Held(NamedTuple):
    """Queries and keys of one layer as the model gave them out, and how often each had been written to then.

    Attributes:
        k: None where they are those that are held already.
        layer: its number.
        keys: stays the same object as long as the keys of this layer are the same numbers; None where nobody knows.
    """

    q: Tensor
    k: Tensor | None
    q_version: int
    k_version: int
    layer: int
    keys: object | None


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
        self._keys: object | None = None
        self._at: dict[int, int] = {}
        self._k = self._q = self._weights = torch.empty(0)
        self._same: Tensor | None = None
        self._steps = self._room = self._turn = 0

    def has(self, layer: int, keys: object | None) -> bool:
        """Whether these keys need not be given once more. In each step some layers' are asked for all the same, in turn, and
        compared: what no counter tells of must not go unnoticed."""
        return keys is not None and keys is self._keys and layer in self._at and layer % _TURNS != self._turn

    def rows(self, one: Held) -> Tensor:
        """The recorded rows of a layer's keys, `[images, keys, heads * d]`."""
        if one.k is not None:
            return one.k.detach()[self._index]
        return self._k[self._at[one.layer]].transpose(1, 2).flatten(2)

    def take(self, held: Sequence[Held], number: int) -> bool:
        """The layers of step `number` (from 1); False where they are better worked off in another way."""
        layers = [one.layer for one in held]
        alike = held[0].keys if all(one.keys is held[0].keys for one in held) else None
        if alike is None and all(one.k is not None for one in held):
            return False
        if alike is None or alike is not self._keys or layers != list(self._at):
            self.flush()
            self._start(held, alike)
        else:
            self._compare(held)
        if self._room < 2:
            self._keys = None
            return False
        self._turn = (self._turn + 1) % _TURNS
        self._q[:, :, :, self._steps].copy_(self._by_heads([one.q for one in held]))
        self._weights[1, self._steps] = number**2
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
        """All keys that were compared were the same; waits for the device.

        Raises:
            NothingRecorded: some were not.
        """
        same, self._same = self._same, None
        if same is not None and not bool(same):
            raise NothingRecorded("something changed the weights of the model's keys in the middle of the run")

    def _compare(self, held: Sequence[Held]) -> None:
        given = [one for one in held if one.k is not None]
        if not given:
            return
        own = self._by_heads([one.k for one in given if one.k is not None])
        # Told at the end, so that no step waits for the device.
        same = (own == torch.stack([self._k[self._at[one.layer]] for one in given])).all()
        self._same = same if self._same is None else self._same & same

    def _start(self, held: Sequence[Held], keys: object | None) -> None:
        q, layers, heads = held[0].q, len(held), self._target.heads
        images, (_, n, width) = self._index.stop - self._index.start, q.shape
        columns = self._k.shape[-2] if held[0].k is None else held[0].k.shape[1]
        a_step = 4 * max(layers * images * width * n, images * heads * n * columns)
        self._room = min(_STEPS, self._budget // a_step)
        if self._room < 2:
            return
        with torch.no_grad():
            rows = torch.stack([self.rows(one) for one in held])
            self._k = rows.unflatten(-1, (heads, -1)).transpose(2, 3).float().contiguous()
        self._keys, self._at = keys, {one.layer: i for i, one in enumerate(held)}
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
