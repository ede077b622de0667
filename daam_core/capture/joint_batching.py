"""Joint attention of several steps of a small model, worked off together.

The start of kernels costs a small model more than their run: what one row of the batch attends with, all layers side by side,
waits until a few steps are finished, and one softmax takes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.joint import add_joint_steps
from ..attention.scores import CPU_BYTES
from .buffers import StepBuffer
from .layer_batching import BATCH_BYTES

_STEPS = 8
"""At most so many steps wait for each other."""


@dataclass(frozen=True, eq=False)
class JointSums:
    """Takes joint attention of finished steps into the sums over steps.

    Attributes:
        buffer: of the layers' resolution.
        selection: float32 `[1, text, channels]`.
        scale: factor on the scores.
        text: which keys are the text's.
    """

    buffer: StepBuffer
    selection: Tensor
    scale: float
    text: slice


class JointBatch:
    """Finished steps that wait, and what was added of the step that runs; an interrupted step is never worked off.

    Args:
        q, k: like those that will be added: `[1, heads of all layers, n, d]` and `[1, heads of all layers, keys, d]`.
        target: takes what waited.
    """

    def __init__(self, q: Tensor, k: Tensor, target: JointSums) -> None:
        self._target = target
        budget = (CPU_BYTES if q.device.type == "cpu" else BATCH_BYTES) // 4
        held = sum(x.untyped_storage().nbytes() for x in (q, k))
        self._room = min(_STEPS, budget // max(1, held))
        self._now: list[tuple[Tensor, Tensor]] = []
        self._finished: list[tuple[Tensor, Tensor, int]] = []

    @property
    def enabled(self) -> bool:
        """Whether several steps fit into the budget."""
        return self._room > 1

    def add(self, q: Tensor, k: Tensor) -> None:
        """Layers of the step that runs, as tensors that nobody else writes into."""
        self._now.append((q, k))

    def end_step(self, number: int) -> None:
        """What was added belongs to step `number`, from 1."""
        if not self._now:
            return
        self._target.buffer.step_terms += sum(q.shape[1] for q, _ in self._now)
        self._finished += [(q, k, number) for q, k in self._now]
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
            numbers = torch.tensor([float(number) for *_, number in finished], device=finished[0][0].device)
            weights = torch.stack([torch.ones_like(numbers), numbers.square()])
            add_joint_steps(
                target.buffer.into.both, [q for q, *_ in finished], [k for _, k, _ in finished], target.selection, target.scale,
                target.text, weights,
            )  # fmt: skip

    def prove(self) -> None:
        """Nothing is left to be proved: what waits is our own copy."""
