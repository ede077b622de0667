"""Small attention layers of one shape, gathered and worked off together, over several steps where they may be.

One by one they would cost a small model more time than its own work: most of it is the start of kernels, not their run.
A model may write into the queries and keys that it gave out, so they are copied: at the end of the step, all layers
at once, where PyTorch's version counters show that nobody wrote into them until then; else at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..attention.scores import CPU_BYTES
from .heap import keep_heap
from .shared_keys import Held, SharedKeys, StepTarget, require_untouched, stacked_rows, untouched

BATCH_BYTES = 16 * 2**20
"""Upper bound of what the layers of one shape take together: their copies and the temporaries of working them off.
On a processor it is `CPU_BYTES`."""
_CPU_SCORES = 2**17  # a processor is busy longer with a layer of more scores than with the start of its kernels
_FEW = 4  # fewer layers than these are not worth the copies
_MANY = 128  # SDXL has 70


class Target(Protocol):
    """What sums the layers that waited."""

    @property
    def heads(self) -> int:
        """Attention heads of one layer."""

    def count(self, layers: int) -> None:
        """So many layers of the step that ends were added."""

    def add(self, q: Tensor, k: Tensor, weights: Tensor | None) -> None:
        """q `[layers * images * heads, n, d]`, k `[layers * images * heads, keys, d]`; `weights` `[2, layers]`, of layers
        of finished steps: 1 and the square of the step's number. None where the step is not over yet."""


class LayerBatch:
    """Waiting layers: side by side they are one layer of more heads.

    Args:
        q, k: one layer's queries `[batch, n, heads * d]` and keys `[batch, keys, heads * d]`; others have their shapes.
        index: the rows of the batch that are recorded.
        target: takes what waited.
        across_steps: finished steps wait too, until there is no room for another.
        hold: hold what eager code gave out by reference until the step ends. Not for a compiled model: what it gives out
            lies in memory that it may use again without a word.
        steps: takes steps whose keys stay the same, None where they never do.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        index: slice,
        target: Target,
        across_steps: bool,
        hold: bool = False,
        steps: StepTarget | None = None,
    ) -> None:
        self._target, self._across_steps = target, across_steps
        images, heads = index.stop - index.start, target.heads
        scores, width = images * heads * q.shape[1] * k.shape[1], images * q.shape[2]
        on_cpu = q.device.type == "cpu"
        if on_cpu:
            keep_heap()
        room = (CPU_BYTES if on_cpu else BATCH_BYTES) // (4 * (width * (q.shape[1] + k.shape[1]) + 2 * scores))
        self._room = 0 if room < _FEW or (on_cpu and scores > _CPU_SCORES) else min(_MANY, room)
        self._q, self._k = _Stack(q, index, heads, self._room), _Stack(k, index, heads, self._room)
        self._weights = torch.ones(2, self._room, device=q.device)
        self._at_once = hasattr(torch, "_foreach_copy_")  # from PyTorch 2.1 on
        self._finished = self._waiting = self._added = 0
        # Tensors of inference mode have no version counter: what they hold later cannot be proved.
        self._may_hold = False
        self._on_trial = hold and not (q.is_inference() or k.is_inference())
        self._held: list[Held] = []
        self._shared = SharedKeys(index, steps, (CPU_BYTES if on_cpu else BATCH_BYTES) // 4) if steps and across_steps else None

    @property
    def enabled(self) -> bool:
        """Whether enough layers fit into the budget."""
        return self._room > 0

    def add(self, q: Tensor, k: Tensor, layer: int = -1, keys: object | None = None) -> None:
        """Let a layer wait, q and k in the shapes of the batch, any float dtype; a full batch is worked off first.

        Args:
            layer, keys: its number, and what tells whether its keys are those of an earlier step, see `Held`.
        """
        self._added += 1
        if self._may_hold:
            if self._waiting + len(self._held) == self._room:
                self._make_room()
            shared = self._shared
            # Keys that are not held on to leave their memory to the model's next layers: that is half the cost of holding.
            if shared is not None and keys is not None and keys is shared.keys and layer in shared.spared:
                self._held.append((q, None, q._version, 0, layer, keys))
            else:
                self._held.append((q, k, q._version, k._version, layer, keys))
            return
        if self._waiting == self._room:
            self._make_room()
        (q_place, own_q), (k_place, own_k) = self._q.to_copy(self._waiting, q), self._k.to_copy(self._waiting, k)
        if self._at_once:
            torch._foreach_copy_([q_place, k_place], [own_q, own_k])
        else:
            q_place.copy_(own_q)
            k_place.copy_(own_k)
        self._waiting += 1
        if self._on_trial:
            self._held.append((q, k, q._version, k._version, layer, keys))

    @property
    def holds(self) -> bool | None:
        """Whether what is added is held by reference until the step ends; None while that is not known."""
        return None if self._on_trial else self._may_hold

    @property
    def room(self) -> int:
        """How many layers may wait."""
        return self._room

    def spared(self, keys: object) -> frozenset[int]:
        """The layers that `hold` takes without their keys, if these are `keys`; see `SharedKeys`."""
        shared = self._shared
        return shared.spared if shared is not None and shared.keys is keys else frozenset()

    def hold(self, held: Held) -> None:
        """Let a layer wait where `holds` says that this is by reference; without its keys if it is one of the `spared`."""
        self._added += 1
        if self._waiting + len(self._held) == self._room:
            self._make_room()
        self._held.append(held)

    def hold_all(self, held: Sequence[Held]) -> None:
        """The same of several layers."""
        if self._waiting + len(self._held) + len(held) > self._room:
            for one in held:
                self.hold(one)
            return
        self._added += len(held)
        self._held += held

    def end_step(self, number: int) -> None:
        """All that waits belongs to step `number` (from 1) or one before it."""
        self._target.count(self._added)
        self._added = 0
        if self._shared is not None and self._held and self._may_hold and self._waiting == self._finished:
            require_untouched(self._held)
            if self._shared.take(self._held, number):
                self._held = []
                return
        self._take_held()
        if not self._across_steps:
            self._empty(self._waiting, None)
            return
        layers = self._waiting - self._finished
        if layers:
            self._weights[1, self._finished : self._waiting] = number**2
            self._finished = self._waiting
            if self._room - self._waiting < layers:
                self.flush()

    def flush(self) -> None:
        """Work off the finished steps; what was added in the present one goes on waiting."""
        if self._shared is not None:
            self._shared.flush()
        if self._finished:
            self._empty(self._finished, self._weights[:, : self._finished])

    def prove(self) -> None:
        """See `SharedKeys.prove`."""
        if self._shared is not None:
            self._shared.prove()

    def _make_room(self) -> None:
        """Work off what is finished, else what there is."""
        self._take_held()
        if self._finished:
            self.flush()
        else:
            self._empty(self._waiting, None)

    def _take_held(self) -> None:
        """Copy what was held by reference; after the first step, decide whether the next may be held.

        Raises:
            NothingRecorded: somebody wrote into queries or keys that nobody wrote into before.
        """
        if self._on_trial:
            self._on_trial, self._may_hold = False, bool(self._held) and untouched(self._held)
            self._held = []
            return
        if not self._held:
            return
        require_untouched(self._held)
        held, self._held = self._held, []
        self._q.copy_all(self._waiting, [q for q, *_ in held])
        given = [k for _, k, *_ in held if k is not None]
        if self._shared is None or len(given) == len(held):
            self._k.copy_all(self._waiting, given)
        else:
            self._k.put(self._waiting, torch.stack([self._shared.rows(layer, k) for _, k, _, _, layer, _ in held]))
        self._waiting += len(held)

    def _empty(self, layers: int, weights: Tensor | None) -> None:
        if not layers:
            return
        # A recording may be read outside the inference mode that it was sampled in.
        with torch.inference_mode(self._weights.is_inference()):
            self._target.add(self._q.heads(layers), self._k.heads(layers), weights)
            for stack in (self._q, self._k):
                stack.shift(layers, self._waiting)
        self._waiting, self._finished = self._waiting - layers, 0


class _Stack:
    """Room for the recorded rows of the queries or the keys of layers of one shape, float32 `[layers, images, heads, n, d]`."""

    def __init__(self, like: Tensor, index: slice, heads: int, room: int) -> None:
        images, (_, n, width) = index.stop - index.start, like.shape
        self._index, self._shape = index, (images, n, heads, width // heads)
        self._strides, self._first = (n * width, width, width // heads, 1), index.start * n * width
        self._all = torch.empty(room, images, heads, n, width // heads, device=like.device)
        self._places = [layer.transpose(1, 2) for layer in self._all]

    def to_copy(self, at: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(where one layer's tensor `[batch, n, heads * d]` goes, what of it goes there), `[images, n, heads, d]`."""
        x = x.detach() if x.requires_grad else x
        if x.is_contiguous():  # one view instead of two, for every layer of every step
            return self._places[at], x.as_strided(self._shape, self._strides, x.storage_offset() + self._first)
        return self._places[at], x[self._index].unflatten(-1, self._shape[2:])

    def copy_all(self, at: int, tensors: list[Tensor]) -> None:
        """Copy the recorded rows of several layers' tensors behind the first `at` layers."""
        with torch.no_grad():
            self.put(at, stacked_rows(tensors, self._index))

    def put(self, at: int, rows: Tensor) -> None:
        """The same of rows that were taken out, `[layers, images, n, heads * d]`."""
        self._all[at : at + len(rows)].copy_(rows.unflatten(-1, self._shape[2:]).transpose(2, 3))

    def heads(self, layers: int) -> Tensor:
        """The first layers, `[layers * images * heads, n, d]`."""
        return self._all[:layers].flatten(0, 2)

    def shift(self, start: int, stop: int) -> None:
        """Bring layers to the beginning."""
        if start < stop:
            self._all[: stop - start] = self._all[start:stop].clone()
