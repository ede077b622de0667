"""Steps whose keys stay the same: the keys of all layers of one shape held once, the queries of several steps beside them.

A text's keys do not depend on the picture: from step to step they are the same numbers, computed anew. Of a small layer they
are most of what would be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import NothingRecorded

_STEPS = 8
"""At most so many steps wait for each other."""
_TURNS = 8
"""In each step the keys of one of so many layers are compared with those that are held."""

Held = tuple[Tensor, Tensor | None, int, int, int, object | None]
"""Queries and keys of one layer as the model gave them out: (q, k, q's version, k's version, layer, keys).

The versions are how often each had been written to then. k is None where it is held already. `keys` stays the same object as
long as the keys of this layer are the same numbers; None where nobody knows. A plain tuple: 70 are made in a step of SDXL.
"""


class StepTarget(Protocol):
    """What sums the steps that waited."""

    @property
    def heads(self) -> int:
        """Attention heads of one layer."""

    def add_steps(self, q: Tensor, k: Tensor, weights: Tensor) -> None:
        """q `[steps, layers, images, n, heads * d]`, k `[layers, images, keys, heads * d]`, any float dtype; `weights`
        `[2, steps]` float32: 1 and the square of the step's number."""


class SharedKeys:
    """Finished steps of the same layers, as long as their keys stay the same.

    Args:
        index: the rows of the batch that are recorded.
        target: takes what waited.
        budget: bytes that the queries of the waiting steps, and the scores of one layer of them, may take each.

    Attributes:
        keys: what the layers of the next step say of their keys if these are the held ones; None where none are held.
        spared: of these layers the next step need not give keys once more. The others', one in eight, are asked for all the
            same and compared: what no counter tells of must not go unnoticed.
    """

    def __init__(self, index: slice, target: StepTarget, budget: int) -> None:
        self._index, self._target, self._budget = index, target, budget
        self.keys: object | None = None
        self.spared: frozenset[int] = frozenset()
        self._layers: tuple[int, ...] = ()
        self._spared: list[frozenset[int]] = []
        self._k = self._q = torch.empty(0)
        self._apart: Tensor | None = None
        self._steps = self._room = self._turn = self._first = 0

    def rows(self, layer: int, k: Tensor | None) -> Tensor:
        """The recorded rows of a layer's keys, `[images, keys, heads * d]`."""
        return self._k[self._layers.index(layer)] if k is None else k.detach()[self._index]

    def take(self, held: Sequence[Held], number: int) -> bool:
        """The layers of step `number` (from 1); False where they are better worked off in another way."""
        q, k, _, _, layers, keys = zip(*held, strict=True)
        alike = keys[0] if keys.count(keys[0]) == len(keys) else None
        if alike is None and all(one is not None for one in k):
            return False
        if alike is None or alike is not self.keys or layers != self._layers:
            self.flush()
            self._start(q, k, layers, alike)
        else:
            self._compare([one for one in k if one is not None])
        if self._room < 2:
            self.keys = None
            return False
        if self._steps and number != self._first + self._steps:
            self.flush()
        if not self._steps:
            self._first = number
        self._turn = (self._turn + 1) % _TURNS
        self.spared = self._spared[self._turn]
        with torch.no_grad():
            self._q[self._steps].copy_(stacked_rows(q, self._index))
        self._steps += 1
        if self._steps == self._room:
            self.flush()
        return True

    def flush(self) -> None:
        """Work off what waits."""
        if self._steps:
            with torch.inference_mode(self._q.is_inference()):
                numbers = torch.arange(self._first, self._first + self._steps, dtype=torch.float32, device=self._q.device)
                weights = torch.stack([torch.ones_like(numbers), numbers.square()])
                self._target.add_steps(self._q[: self._steps], self._k, weights)
        self._steps = 0

    def prove(self) -> None:
        """All keys that were compared were the same; waits for the device.

        Raises:
            NothingRecorded: some were not.
        """
        apart, self._apart = self._apart, None
        if apart is not None and not bool(apart == 0):  # nor where it is no number
            raise NothingRecorded("something changed the weights of the model's keys in the middle of the run")

    def _compare(self, given: Sequence[Tensor]) -> None:
        """The keys of every eighth layer with those that are held."""
        if not given:
            return
        with torch.no_grad():
            # Told at the end, so that no step waits for the device. A difference and its largest value take a third of the
            # time that `==` and `all` take.
            apart = (stacked_rows(given, self._index) - self._k[self._turn :: _TURNS]).abs().amax()
            self._apart = apart if self._apart is None else torch.maximum(self._apart, apart)

    def _start(self, q: Sequence[Tensor], k: Sequence[Tensor | None], layers: tuple[int, ...], keys: object | None) -> None:
        images, (_, n, width) = self._index.stop - self._index.start, q[0].shape
        columns = self._k.shape[-2] if k[0] is None else k[0].shape[1]
        a_step = 4 * max(len(layers) * images * width * n, images * self._target.heads * n * columns)
        self._room = min(_STEPS, self._budget // a_step)
        if self._room < 2:
            return
        with torch.no_grad():
            self._k = torch.stack([self.rows(layer, one) for layer, one in zip(layers, k, strict=True)])
        self.keys, self._layers = keys, layers
        self._spared = [frozenset(layers) - frozenset(layers[turn::_TURNS]) for turn in range(_TURNS)]
        self._q = torch.empty(self._room, len(layers), images, n, width, dtype=q[0].dtype, device=q[0].device)


def stacked_rows(tensors: Sequence[Tensor], index: slice) -> Tensor:
    """The rows `index` of several tensors `[batch, …]` in one, `[tensors, rows, …]`."""
    # Taking few rows out of each tensor costs a view each; out of all of them together, once.
    if tensors[0].shape[0] > 2 * (index.stop - index.start):
        return torch.stack([x[index] for x in tensors])
    return torch.stack(tuple(tensors))[:, index]
