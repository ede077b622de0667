"""Small attention calls of one call of a model, held until it ends and worked off together: side by side, layers are one
layer of more heads.

One by one they would cost a small model more time than its own work, as small layers of UNets would, see `layer_batching`. A
model may write into the queries and keys that it gave out: the first call of the model is only watched, and held are later
ones where PyTorch's version counters showed that nobody had written into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ..attention.scores import CPU_BYTES
from ..errors import NothingRecorded
from .attention_call import AttentionCall
from .heap import keep_heap
from .layer_batching import BATCH_BYTES

_FEW = 4
"""A call of which fewer would fit into the budget is not worth holding."""
_MANY = 1024
"""At most so many calls wait."""
_KINDS = 4
"""So many kinds of calls are remembered with memory for them."""
_KEPT = 2**20
"""Up to so many bytes that a step's calls of one kind take, their memory is used again."""
_version = attrgetter("_version")


@dataclass(frozen=True, eq=False, slots=True)
class CallKind:
    """What calls that are worked off side by side have in common; one object for each kind.

    Attributes:
        scale: factor on the scores.
        heads_last: whether queries and keys are `[batch, n, heads, d]`, as backends of diffusers are given them, and not
            `[batch, heads, n, d]`.
    """

    scale: float
    heads_last: bool


_Held = tuple[int, Tensor, Tensor, int, int, CallKind]
"""Of one layer's call: its number, queries, keys, how often these had been written to, and its kind. A plain tuple: each layer
of each step makes one."""


@dataclass(frozen=True, eq=False, slots=True)
class CallPattern:
    """What a layer's call that waited was like: another one like it waits too, and is not read before the model is done.

    Attributes:
        layer: its number.
        q, k: shapes of queries and keys, `[batch, heads, n, d]`.
        q_beside, k_beside: the same as backends of diffusers are given them, `[batch, n, heads, d]`.
        dtype: of both.
        scale: factor on the scores; `usual` where it is the one that is meant when none is given.
        kinds: of calls of PyTorch's own function and of a backend.
    """

    layer: int
    q: torch.Size
    k: torch.Size
    q_beside: torch.Size
    k_beside: torch.Size
    dtype: torch.dtype
    scale: float
    usual: bool
    kinds: tuple[CallKind, CallKind]

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> tuple[Tensor, Tensor] | None:
        """The queries and keys of a call like it, as the function was given them; None of any other call.

        Args:
            backend: whether the function is a backend of diffusers, else it is PyTorch's own.
        """
        get = kwargs.get
        if not args:
            q, k = get("query"), get("key")
        elif len(args) == 3 and not backend:
            q, k, _ = args
        else:
            return None
        if q is None or k is None or get("attn_mask") is not None or get("is_causal") or get("_parallel_config") is not None:
            return None
        scale = get("scale")
        if (scale != self.scale if scale is not None else not self.usual) or q.dtype is not self.dtype:
            return None
        if q.shape != (self.q_beside if backend else self.q) or k.shape != (self.k_beside if backend else self.k):
            return None
        return q, k


@dataclass(eq=False, slots=True)
class HeldCalls:
    """Calls of one kind, side by side, in tensors of their own, which later calls are given again.

    Attributes:
        kind: of all of them.
        layers: their numbers.
        q: queries, `[layers, batch, n, heads, d]` where the heads are last, else `[layers, batch, heads, n, d]`.
        k: keys, likewise; grouped keys have fewer heads.
        both: where both lie, one behind the other, None where they have not one shape.
        users: how many need them.
    """

    kind: CallKind
    layers: tuple[int, ...]
    q: Tensor
    k: Tensor
    both: Tensor | None = None
    users: int = 1

    @staticmethod
    def like(kind: CallKind, layers: tuple[int, ...], q: Tensor, k: Tensor) -> HeldCalls:
        """Memory for calls of so many layers with such queries and keys."""
        n = len(layers)
        with torch.inference_mode(False):
            if q.shape == k.shape and q.dtype == k.dtype:
                both = torch.empty(2 * n, *q.shape, dtype=q.dtype, device=q.device)
                return HeldCalls(kind, layers, both[:n], both[n:], both)
            own_q, own_k = (torch.empty(n, *x.shape, dtype=x.dtype, device=x.device) for x in (q, k))
            return HeldCalls(kind, layers, own_q, own_k)

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return sum(x.numel() * x.element_size() for x in (self.q, self.k))

    @property
    def size(self) -> tuple[int, int]:
        """(queries, keys) of each."""
        axis = -3 if self.kind.heads_last else -2
        return self.q.shape[axis], self.k.shape[axis]

    @property
    def batch(self) -> int:
        return self.q.shape[1]

    def as_one(self, which: Sequence[int] | None = None) -> AttentionCall:
        """As one call of more heads: all of them, or those at some places."""
        q, k = (self.q, self.k) if which is None else (self.q[list(which)], self.k[list(which)])
        if self.kind.heads_last:
            q, k = q.transpose(2, 3), k.transpose(2, 3)
        return AttentionCall(q.transpose(0, 1).flatten(1, 2), k.transpose(0, 1).flatten(1, 2), self.kind.scale)


class CallBatch:
    """Calls that wait.

    Args:
        enabled: whether calls may wait at all. Not those of a compiled model: what it gives out lies in memory that it may use
            again without a word.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled, self._watching = enabled, True
        self._held: list[_Held] = []
        self._rooms: dict[tuple[torch.Size, torch.Size], int] = {}
        self._kinds: dict[tuple[object, ...], CallKind] = {}
        self._made: dict[tuple[CallKind, tuple[int, ...]], list[HeldCalls]] = {}
        self._least = _MANY
        self.full = False

    def begin(self) -> None:
        """The model is called; what an earlier call that failed has left is dropped."""
        self._held, self.full = [], False

    def pattern(self, layer: int, call: AttentionCall) -> CallPattern:
        """What other calls like one that waits are known by."""
        q, k = call.q, call.k
        return CallPattern(
            layer, q.shape, k.shape, q.transpose(1, 2).shape, k.transpose(1, 2).shape, q.dtype, call.scale,
            call.scale == q.shape[-1] ** -0.5, (self._kind(call, False), self._kind(call, True)),
        )  # fmt: skip

    def add(self, layer: int, call: AttentionCall) -> bool:
        """Whether a layer's call waits now; else it is to be worked off at once. `full` says that there is no room for more."""
        if not self._enabled or self.full or call.bias is not None or call.lse is not None:
            return False
        q, k = call.q, call.k
        shapes = q.shape, k.shape
        room = self._rooms.get(shapes)
        if room is None:
            room = self._rooms[shapes] = _room(call)
            self._least = min(self._least, room) if room else self._least
        if not room:
            return False
        self._held.append((layer, q, k, q._version, k._version, self._kind(call, False)))
        self.full = len(self._held) >= room
        return not self._watching

    def add_like(self, pattern: CallPattern, q: Tensor, k: Tensor, backend: bool) -> bool:
        """The same of a call like one that waited earlier, without reading it."""
        if self.full or not self._enabled:
            return False
        held = self._held
        try:
            held.append((pattern.layer, q, k, q._version, k._version, pattern.kinds[backend]))
        except RuntimeError:  # tensors of inference mode have no version
            return False
        self.full = len(held) >= self._least
        return True

    def take(self) -> list[HeldCalls]:
        """What waits, calls of one kind side by side; `users` counts those who need them, the caller first.

        Raises:
            NothingRecorded: somebody wrote into queries or keys that nobody wrote into before.
        """
        held, self._held, self.full = self._held, [], False
        if not held:
            return []
        layers, q, k, of_q, of_k, kinds = zip(*held, strict=True)
        untouched = tuple(map(_version, q)) == of_q and tuple(map(_version, k)) == of_k
        if self._watching:
            self._watching, self._enabled = False, untouched
            return []
        if not untouched:
            raise NothingRecorded("something began to write into the model's queries or keys in the middle of the run")
        if kinds.count(kinds[0]) == len(kinds):  # as most models have it: nothing to sort
            return [self._side_by_side(kinds[0], layers, q, k)]
        alike: dict[CallKind, list[_Held]] = {}
        for one in held:
            alike.setdefault(one[-1], []).append(one)
        return [
            self._side_by_side(kind, *zip(*((layer, own_q, own_k) for layer, own_q, own_k, *_ in own), strict=True))
            for kind, own in alike.items()
        ]

    def _side_by_side(self, kind: CallKind, layers: tuple[int, ...], q: tuple[Tensor, ...], k: tuple[Tensor, ...]) -> HeldCalls:
        """In memory that was used before where nobody needs it any more: fresh memory costs as much as the copy."""
        made = self._made.get((kind, layers))
        if made is None:
            if len(self._made) >= _KINDS:
                self._made.clear()
            made = self._made[kind, layers] = []
        calls = next((one for one in made if not one.users), None)
        with torch.no_grad():
            if calls is None:
                calls = HeldCalls.like(kind, layers, q[0], k[0])
                if calls.nbytes <= _KEPT:
                    made.append(calls)
            if calls.both is not None:
                torch.stack(q + k, out=calls.both)
            else:
                torch.stack(q, out=calls.q)
                torch.stack(k, out=calls.k)
        calls.users = 1
        return calls

    def _kind(self, call: AttentionCall, heads_last: bool) -> CallKind:
        q, k = call.q, call.k
        key = q.shape, k.shape, q.dtype, k.dtype, q.device, call.scale, heads_last
        if key not in self._kinds:
            self._kinds[key] = CallKind(call.scale, heads_last)
        return self._kinds[key]


def _room(call: AttentionCall) -> int:
    """How many calls like this one may wait, 0 where none may."""
    q, k = call.q, call.k
    if q.is_inference() or k.is_inference():  # they have no version counter: what they hold later cannot be proved
        return 0
    if q.device.type == "cpu":
        keep_heap()
    size = 4 * (q.numel() + k.numel())
    room = (CPU_BYTES if q.device.type == "cpu" else BATCH_BYTES) // size
    return room if room >= _FEW and not call.packed_heads else 0
