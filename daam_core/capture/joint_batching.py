"""Joint attention of several steps of a small model, worked off together.

The start of kernels costs a small model more than their run: what the model attended with, all layers side by side, waits until
a few steps are finished, and each row of the batch is cut out of all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.joint import add_joint_steps
from ..attention.scores import CPU_BYTES
from .buffers import StepBuffer
from .call_batching import CallKind, HeldCalls
from .layer_batching import BATCH_BYTES

_STEPS = 8
"""At most so many steps wait for each other."""


@dataclass(frozen=True, eq=False)
class JointPlace:
    """Where one picture and its text stand in calls of a kind.

    Attributes:
        index: the row of the batch.
        picture: which queries are the picture's.
        text: which keys are the text's.
    """

    index: int
    picture: slice
    text: slice


@dataclass(frozen=True, eq=False)
class JointSums:
    """Takes joint attention of finished steps into the sums over steps.

    Attributes:
        buffer: of the layers' resolution.
        selection: float32 `[1, text, channels]`.
        kind: of the calls.
        place: of the picture in them.
    """

    buffer: StepBuffer
    selection: Tensor
    kind: CallKind
    place: JointPlace

    def queries(self, q: Tensor) -> Tensor:
        """The picture's, of `HeldCalls.q`: `[layers, heads, n, d]`."""
        return self._heads(q)[..., self.place.picture, :]

    def keys(self, k: Tensor) -> Tensor:
        """All keys beside it, of `HeldCalls.k`: `[layers, key heads, keys, d]`."""
        return self._heads(k)

    def _heads(self, x: Tensor) -> Tensor:
        own = x[:, self.place.index]
        return own.transpose(1, 2) if self.kind.heads_last else own


class JointBatch:
    """Finished steps that wait, and what was added of the step that runs; an interrupted step is never worked off.

    Args:
        calls: like those that will be added.
        target: takes what waited.
    """

    def __init__(self, calls: HeldCalls, target: JointSums) -> None:
        self._target = target
        budget = (CPU_BYTES if calls.q.device.type == "cpu" else BATCH_BYTES) // 4
        self._room = min(_STEPS, budget // max(1, calls.nbytes))
        layers, heads = calls.q.shape[0], calls.q.shape[-2 if calls.kind.heads_last else -3]
        self._terms = layers * heads
        self._now: list[HeldCalls] = []
        self._finished: list[tuple[HeldCalls, int]] = []

    @property
    def enabled(self) -> bool:
        """Whether several steps fit into the budget."""
        return self._room > 1

    def add(self, calls: HeldCalls) -> None:
        """Layers of the step that runs."""
        calls.users += 1
        self._now.append(calls)

    def end_step(self, number: int) -> None:
        """What was added belongs to step `number`, from 1."""
        if not self._now:
            return
        self._target.buffer.step_terms += self._terms * len(self._now)
        self._finished += [(calls, number) for calls in self._now]
        self._now = []
        if len(self._finished) >= self._room:
            self.flush()

    def flush(self) -> None:
        """Work off the finished steps."""
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        target = self._target
        with torch.no_grad():
            numbers = torch.tensor([float(number) for _, number in finished], device=target.selection.device)
            weights = torch.stack([torch.ones_like(numbers), numbers.square()])
            q, k = [target.queries(calls.q) for calls, _ in finished], [target.keys(calls.k) for calls, _ in finished]
            add_joint_steps(target.buffer.into.both, q, k, target.selection, target.kind.scale, target.place.text, weights)

        for calls, _ in finished:
            calls.users -= 1

    def close(self) -> None:
        """Nothing is to be added any more."""
        self._room = 0

    def prove(self) -> None:
        """Nothing is left to be proved: what waits is our own copy."""
