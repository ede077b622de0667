"""Steps whose keys stay the same: the keys of all layers of one shape held once, the queries of several steps beside them.

A text's keys do not depend on the picture: from step to step they are the same numbers, computed anew. Of a small layer they
are most of what would be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Protocol

import torch
from torch import Tensor

from ..attention.scores import step_scratch
from ..errors import NothingRecorded

_STEPS = 8
"""At most so many steps wait for each other."""
_TURNS = 8
"""In each step the keys of one of so many layers are compared with those that are held."""
WRITTEN = "something began to write into the model's queries or keys in the middle of the run"
_version, _layer = attrgetter("_version"), itemgetter(4)

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

    def add_steps(self, q: Tensor, k: Tensor, weights: Tensor, scratch: Tensor | None) -> None:
        """q `[layers * images * heads, steps, n, d]`, k `[layers * images * heads, keys, d]`, both float32; `weights`
        `[2, steps]` float32: 1 and the square of the step's number; `scratch`: see `scores.add_step_sums`."""


class SharedKeys:
    """Finished steps of the same layers, as long as their keys stay the same.

    Queries are copied at the end of each step, to where they are worked off. The keys that are asked for once more are held by
    reference until then: comparing them is a few launches for all steps, and not for each.

    Args:
        index: the rows of the batch that are recorded.
        target: takes what waited.
        budget: bytes that the recorded queries of the waiting steps, and the scores of one layer of them, may take each.

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
        self._k = self._q = self._split_k = self._stage = self._rows = torch.empty(0)
        self._places: list[Tensor] = []
        self._given: list[tuple[int, Tensor, int]] = []
        self._scratch: Tensor | None = None
        self._apart: Tensor | None = None
        self._steps = self._room = self._turn = self._first = 0

    def rows(self, layer: int, k: Tensor | None) -> Tensor:
        """The recorded rows of a layer's keys, `[images, keys, heads * d]`."""
        return self._k[self._layers.index(layer)] if k is None else k.detach()[self._index]

    def take(self, held: Sequence[Held], number: int) -> bool:
        """The layers of step `number` (from 1); False where they are better worked off in another way.

        Raises:
            NothingRecorded: somebody wrote into keys that were held for an earlier step.
        """
        layers, keys = tuple(map(_layer, held)), held[0][5]
        if any(one[5] is not keys for one in held):
            keys = None
        if keys is None and all(one[1] is not None for one in held):
            return False
        if keys is None or keys is not self.keys or layers != self._layers:
            self.flush()
            self._start(held, layers, keys)
        else:
            given = [(place, one[1], one[3]) for place, one in enumerate(held) if one[1] is not None]
            self._given += [(place, k.detach(), version) for place, k, version in given]
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
            torch.stack([one[0] for one in held], out=self._stage)  # memory that is kept, see `scores.add_step_sums`
            self._places[self._steps].copy_(self._rows)
        self._steps += 1
        if self._steps == self._room:
            self.flush()
        return True

    def flush(self) -> None:
        """Work off what waits.

        Raises:
            NothingRecorded: somebody wrote into what was held.
        """
        if any(k._version != version for _, k, version in self._given):
            raise NothingRecorded(WRITTEN)
        with torch.inference_mode(self._k.is_inference()), torch.no_grad():
            self._compare()
            if self._steps:
                numbers = torch.arange(self._first, self._first + self._steps, dtype=torch.float32, device=self._q.device)
                weights = torch.stack([torch.ones_like(numbers), numbers.square()])
                q = self._q[..., : self._steps, :, :].flatten(0, 2)
                self._target.add_steps(q, self._split_k, weights, self._scratch)
        self._steps = 0

    def prove(self) -> None:
        """All keys that were compared were the same; waits for the device.

        Raises:
            NothingRecorded: some were not.
        """
        apart, self._apart = self._apart, None
        if apart is not None and not bool(apart == 0):  # nor where it is no number
            raise NothingRecorded("something changed the weights of the model's keys in the middle of the run")

    def _compare(self) -> None:
        """The keys that were given with those that are held."""
        given, self._given = self._given, []
        if not given:
            return
        own = torch.stack([self._k[place] for place, *_ in given])
        # Told at the end, so that no step waits for the device. A difference and its largest value take a third of the time
        # that `==` and `all` take.
        apart = (stacked_rows([k for _, k, _ in given], self._index) - own).abs().amax()
        self._apart = apart if self._apart is None else torch.maximum(self._apart, apart)

    def _start(self, held: Sequence[Held], layers: tuple[int, ...], keys: object | None) -> None:
        (q, k, *_), images = held[0], self._index.stop - self._index.start
        n, width = q.shape[1:]
        heads = self._target.heads
        columns = self._k.shape[-2] if k is None else k.shape[1]
        a_step = 4 * max(len(layers) * images * width * n, images * heads * n * columns)
        self._room = min(_STEPS, self._budget // a_step)
        if self._room < 2:
            return
        with torch.no_grad():
            self._k = torch.stack([self.rows(one[4], one[1]) for one in held])
            self._split_k = _heads_apart(self._k, heads).float().flatten(0, 2)
            shape = (len(layers), images, heads, self._room, n, width // heads)
            self._q = torch.empty(shape, device=q.device)
            self._places = list(self._q.unbind(3))
            self._stage = torch.empty(len(layers), *q.shape, dtype=q.dtype, device=q.device)
            self._rows = _heads_apart(self._stage[:, self._index], heads)
            self._scratch = step_scratch(self._split_k, images * heads, self._room, n)
        self.keys, self._layers = keys, layers
        self._spared = [frozenset(layers) - frozenset(layers[turn::_TURNS]) for turn in range(_TURNS)]


def _heads_apart(rows: Tensor, heads: int) -> Tensor:
    """`[layers, images, n, heads * d]` -> `[layers, images, heads, n, d]`, a view."""
    return rows.unflatten(-1, (heads, -1)).transpose(2, 3)


def require_untouched(held: Sequence[Held]) -> None:
    """Nobody wrote into what is held.

    Raises:
        NothingRecorded: somebody did.
    """
    if not untouched(held):
        raise NothingRecorded(WRITTEN)


def untouched(held: Sequence[Held]) -> bool:
    """Whether nobody wrote into what is held."""
    q, k, q_versions, k_versions, _, _ = zip(*held, strict=True)
    if tuple(map(_version, q)) != q_versions:
        return False
    return all(one is None or one._version == version for one, version in zip(k, k_versions, strict=True))


def stacked_rows(tensors: Sequence[Tensor], index: slice) -> Tensor:
    """The rows `index` of several tensors `[batch, …]` in one, `[tensors, rows, …]`."""
    # Taking few rows out of each tensor costs a view each; out of all of them together, once.
    if tensors[0].shape[0] > 2 * (index.stop - index.start):
        return torch.stack([x[index] for x in tensors])
    return torch.stack(tuple(tensors))[:, index]
