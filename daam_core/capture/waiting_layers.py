"""Small layers whose attention to concepts is worked off together, those of several steps at once: most of their time would
be the start of kernels, and a hook in the middle of a model finds nothing of its own in the processor's caches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention.concepts import Shares, add_fractions, add_step_fractions
from ..errors import NothingRecorded
from .concept_sums import PRESENCE_POWER, GridConceptSums

_STEPS = 8
"""At most so many finished steps wait for each other."""
_BUDGET = 2**21
"""Bytes that their queries may take."""


class WaitingLayers:
    """Layers of one shape that attend for one picture.

    Queries are copied in the first step, as the model may write into what it gave out. Where it did not, they are held by
    reference from then on until their step ends, and every step proves that nobody wrote into them.

    Args:
        sums: what they are added to.
        shares: which columns stand above and below a concept's fraction.
        heads, scale: of each layer.
        hold: whether queries may be held by reference at all: of eager models only.
    """

    def __init__(self, sums: GridConceptSums, shares: Shares, heads: int, scale: float, hold: bool) -> None:
        self._sums, self._shares, self._heads, self._scale = sums, shares, heads, scale
        self._on_trial, self._may_hold = hold, False
        self._queries: list[Tensor] = []
        self._rows: list[int] = []
        self._keys: list[Tensor] = []
        self._given: list[tuple[Tensor, int]] = []
        self._stacked: tuple[Sequence[Tensor], Tensor] = (), torch.empty(0)
        self._finished = torch.empty(0)
        self._finished_keys = self._stacked[1]
        self._numbers: list[int] = []

    def add(self, q: Tensor, row: int, keys: Tensor) -> None:
        """One layer: q `[batch, n, heads * d]`, of which `row` is the picture's; keys `[columns, heads * d]`."""
        self._sums.step_terms += self._heads
        self._keys.append(keys)
        if self._may_hold or self._on_trial:
            if q.is_inference():  # has no counter that would tell
                self._on_trial = self._may_hold = False
            else:
                self._given.append((q, q._version))
        self._queries.append(q if self._may_hold else q.detach()[row].clone())
        self._rows.append(row if self._may_hold else -1)

    def end_step(self, number: int) -> None:
        """What waits belongs to step `number`, from 1.

        Raises:
            NothingRecorded: somebody wrote into queries that nobody wrote into in the first step.
        """
        if not self._queries:
            return
        with torch.no_grad():
            queries, keys = self._taken()
            if self._numbers and (keys is not self._finished_keys or queries[0].shape != self._finished.shape[2:]):
                self._work_off()
            if not self._numbers and (self._finished_keys is not keys or not len(self._finished)):
                room = _BUDGET // (queries[0].numel() * len(queries) * queries[0].element_size())
                shape = (max(1, min(_STEPS, room)), len(queries), *queries[0].shape)
                self._finished, self._finished_keys = queries[0].new_empty(shape), keys
            torch.stack(queries, out=self._finished[len(self._numbers)])
            self._numbers.append(number)
            if len(self._numbers) == len(self._finished):
                self._work_off()

    def flush(self) -> None:
        """Work off all that waits; what was added in the present step goes to it."""
        self._work_off()
        if self._queries:
            with torch.no_grad():
                queries, keys = self._taken()
                self._sums.dirty = True
                add_fractions(self._sums.now, torch.stack(queries), keys, self._shares, self._heads, self._scale)

    def finish(self) -> None:
        """Work off the finished steps, and forget what waits beside them."""
        self._work_off()
        self._clear()

    def _work_off(self) -> None:
        """The finished steps."""
        steps = len(self._numbers)
        if not steps:
            return
        # A recording may be read outside the inference mode that it was sampled in.
        with torch.inference_mode(self._sums.both.is_inference()), torch.no_grad():
            numbers = torch.tensor(self._numbers, dtype=torch.float64)
            late = [numbers**power for power in (2, PRESENCE_POWER)]
            weights = torch.stack([torch.stack([torch.ones_like(one), one]) for one in late]).float()
            keys = self._finished_keys
            add_step_fractions(
                self._sums.both,
                self._finished[:steps].flatten(0, 1),
                keys.repeat(steps, 1, 1),
                self._shares,
                self._heads,
                self._scale,
                weights.repeat_interleave(len(keys), 2).to(keys.device),
            )
        self._numbers = []

    def _taken(self) -> tuple[list[Tensor], Tensor]:
        """Queries `[n, heads * d]` and stacked keys of the present step, which nothing waits for any more."""
        untouched = all(q._version == version for q, version in self._given)
        if self._may_hold and not untouched:
            raise NothingRecorded("something began to write into the model's queries in the middle of the run")
        if self._on_trial:
            self._on_trial, self._may_hold = False, untouched
        queries = [q if row < 0 else q.detach()[row] for q, row in zip(self._queries, self._rows, strict=True)]
        before, keys = self._stacked
        if len(before) != len(self._keys) or any(a is not b for a, b in zip(before, self._keys, strict=True)):
            keys = torch.stack(self._keys)
            self._stacked = self._keys, keys
        self._clear()
        return queries, keys

    def _clear(self) -> None:
        self._queries, self._rows, self._keys, self._given = [], [], [], []
