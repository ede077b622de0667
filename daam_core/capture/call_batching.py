"""Small attention calls of one call of a model, held until it ends and worked off together: side by side, layers are one
layer of more heads.

One by one they would cost a small model more time than its own work, as small layers of UNets would, see `layer_batching`. A
model may write into the queries and keys that it gave out: the first call of the model is only watched, and held are later
ones where PyTorch's version counters showed that nobody had written into them.
"""

from __future__ import annotations

import torch

from ..attention.scores import CPU_BYTES
from ..errors import NothingRecorded
from .attention_call import AttentionCall
from .layer_batching import BATCH_BYTES

_FEW = 4
"""A call of which fewer would fit into the budget is not worth holding."""


_Held = tuple[int, AttentionCall, int, int]
"""The number of a layer, its call, and how often its queries and its keys had been written to. A plain tuple: each layer of
each step makes one."""


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
        self.full = False

    def begin(self) -> None:
        """The model is called; what an earlier call that failed has left is dropped."""
        self._held, self.full = [], False

    def add(self, layer: int, call: AttentionCall) -> bool:
        """Whether a layer's call waits now; else it is to be worked off at once. `full` says that there is no room for more."""
        if not self._enabled or self.full or call.bias is not None or call.lse is not None:
            return False
        q, k = call.q, call.k
        shapes = q.shape, k.shape
        room = self._rooms.get(shapes)
        if room is None:
            room = self._rooms[shapes] = _room(call)
        if not room:
            return False
        self._held.append((layer, call, q._version, k._version))
        self.full = len(self._held) >= room
        return not self._watching

    def take(self) -> list[tuple[list[int], AttentionCall]]:
        """What waits, calls of one shape as one call of more heads, with the numbers of their layers.

        Raises:
            NothingRecorded: somebody wrote into queries or keys that nobody wrote into before.
        """
        held, self._held, self.full = self._held, [], False
        untouched = all(x.q._version == of_q and x.k._version == of_k for _, x, of_q, of_k in held)
        if self._watching:
            if held:
                self._watching, self._enabled = False, untouched
            return []
        if not untouched:
            raise NothingRecorded("something began to write into the model's queries or keys in the middle of the run")
        alike: dict[tuple[object, ...], list[tuple[int, AttentionCall]]] = {}
        for layer, call, _, _ in held:
            key = (call.q.shape, call.k.shape, call.scale, call.q.dtype)
            alike.setdefault(key, []).append((layer, call))
        return [([layer for layer, _ in group], _side_by_side([call for _, call in group])) for group in alike.values()]


def _room(call: AttentionCall) -> int:
    """How many calls like this one may wait, 0 where none may."""
    q, k = call.q, call.k
    if q.is_inference() or k.is_inference():  # they have no version counter: what they hold later cannot be proved
        return 0
    size = 4 * (q.numel() + k.numel())
    room = (CPU_BYTES if q.device.type == "cpu" else BATCH_BYTES) // size
    return room if room >= _FEW and not call.packed_heads else 0


def _side_by_side(calls: list[AttentionCall]) -> AttentionCall:
    with torch.no_grad():
        q, k = (torch.stack(parts, 1).flatten(1, 2) for parts in ([c.q for c in calls], [c.k for c in calls]))
    return AttentionCall(q, k, calls[0].scale)
