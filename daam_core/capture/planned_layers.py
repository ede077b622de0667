"""The layers of a UNet whose way to the sums is known from an earlier forward: from their hooks to where they wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter, is_

import torch
from torch import Tensor

from ..types import Grid
from .layer_batching import LayerBatch
from .layer_plan import LayerPlan
from .projection_wrapper import Note

_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


@dataclass(frozen=True, eq=False)
class _AsBefore:
    """A forward whose noted layers were all taken: one like it is taken at once, and not layer by layer.

    Attributes:
        order: (layer, whether these are keys) of its notes, in their order: queries ahead of keys.
        layers: their layers.
        q_shapes, q_dtypes: of their queries.
        plans: of each layer.
        batches: where layers wait, and which of them do.
    """

    order: tuple[tuple[int, ...], tuple[bool, ...]]
    layers: tuple[int, ...]
    q_shapes: list[torch.Size]
    q_dtypes: list[torch.dtype]
    plans: list[Sequence[LayerPlan]]
    batches: list[tuple[LayerBatch, list[int]]]

    @staticmethod
    def of(layers: tuple[int, ...], plans: LayerPlans) -> _AsBefore:
        """Of layers that gave queries and keys one after the other."""
        order = tuple(layer for layer in layers for _ in range(2)), (False, True) * len(layers)
        own = [plans.get(layer) or () for layer in layers]
        places: dict[LayerBatch, list[int]] = {}
        for place, found in enumerate(own):
            for plan in found:
                if plan.batch is not None:
                    places.setdefault(plan.batch, []).append(place)
        shapes, dtypes = [one.q_shape for one, *_ in own], [one.dtype for one, *_ in own]
        return _AsBefore(order, layers, shapes, dtypes, own, list(places.items()))


class LayerPlans:
    """The plans of a UNet's layers, one for each side that is recorded, while its forwards stay alike.

    Attributes:
        before: the last forward, where all that was noted of it was taken.
    """

    def __init__(self) -> None:
        self._plans: dict[int, Sequence[LayerPlan]] = {}
        self._held: frozenset[int] | None = None
        self.before: _AsBefore | None = None
        self._sides: list[list[LayerBatch]] = []

    def get(self, layer: int) -> Sequence[LayerPlan] | None:
        """A layer's plans, None where there are none."""
        return self._plans.get(layer)

    def set(self, layer: int, plans: Sequence[LayerPlan]) -> None:
        """A layer attended in a way that was not known."""
        self._plans[layer], self._held, self.before = plans, None, None

    def held(self) -> frozenset[int]:
        """The layers that may be looked at when the forward is over: all that they give out is held by reference anyway, and
        fits where it waits."""
        if self._held is None:
            batches = {layer: [plan.batch for plan in plans] for layer, plans in self._plans.items()}
            own = [batch for found in batches.values() for batch in found if batch is not None]
            if any(batch.holds is None for batch in own):
                return frozenset()
            counts = Counter(own)
            held = {
                layer: found
                for layer, found in batches.items()
                if all(batch is not None and batch.holds and counts[batch] <= batch.room for batch in found)
            }
            self._held = frozenset(held)
            sides = zip(*held.values(), strict=False)
            self._sides = [[batch for batch in dict.fromkeys(side) if batch is not None] for side in sides]
        return self._held

    def spared(self, keys: object | None) -> frozenset[int]:
        """Of these, the layers whose keys are held already if they are `keys`."""
        if keys is None or not self.held():
            return frozenset()
        sides = [frozenset().union(*(batch.spared(keys) for batch in side)) for side in self._sides]
        return frozenset.intersection(*sides)


@dataclass(frozen=True, eq=False)
class PlannedLayers:
    """The layers of one forward that attended in an earlier one like it.

    Attributes:
        plans: of each of them.
        text_keys: the same object as in an earlier forward whose text and weights were the same, None where nobody knows.
        reads_self: whether the picture's attention to itself is kept in this step, and is what its projections say.
        read: the layers that came, in their order.
    """

    plans: LayerPlans
    text_keys: object | None
    reads_self: bool
    read: list[int] = field(default_factory=list)

    def take(self, layer: int, grid: Grid, q: Tensor, k: Tensor, of_context: bool) -> bool:
        """Add a layer's attention, if it is what was planned; else nothing was done.

        Args:
            layer: its number.
            grid, q, k: see `LayerPlan`.
            of_context: whether the keys are a plain linear projection of the very text that the model was given.
        """
        plans = self.plans.get(layer)
        if plans is None or not plans[0].fits(grid, q, k):
            return False
        self.read.append(layer)
        keys = self.text_keys if of_context else None
        for plan in plans:
            plan.add(q, k, keys)
        return True

    def hold(
        self, layer: int, grid: Grid, q: Tensor, k: Tensor | None, q_version: int, k_version: int, of_context: bool
    ) -> bool:
        """The same of a layer of `LayerPlans.held`; `k` is None where it is one of the spared ones."""
        plans = self.plans.get(layer)
        if plans is None:
            return False
        first = plans[0]
        if q.shape != first.q_shape or grid != first.grid or (k is not None and k.shape != first.k_shape):
            return False
        if q.dtype != first.dtype:
            return False
        self.read.append(layer)
        held = q, k, q_version, k_version, layer, self.text_keys if of_context else None
        for plan in plans:
            assert plan.batch is not None
            plan.batch.hold(held)
        return True

    def hold_all(self, notes: Sequence[Note], context: Tensor | None, grid_of: Callable[[int], Grid]) -> bool:
        """The same of all that was noted of a forward, if it is what was noted of the last; else nothing was done.

        Args:
            context: the text that the model was given, which all their keys are a plain linear projection of.
            grid_of: gives (h, w) of a layer's queries in this forward.
        """
        before = self.plans.before
        if before is None or context is None:
            return False
        layers, kinds, sources, tensors, versions = zip(*notes, strict=True)
        if (layers, kinds) != before.order or not all(map(is_, sources[1::2], repeat(context))):
            return False
        q, k = tensors[::2], tensors[1::2]
        if any(map(is_, sources[::2], repeat(context))) or list(map(_shape, q)) != before.q_shapes:
            return False
        if list(map(_dtype, q)) != before.q_dtypes:
            return False
        for layer, keys, (plan, *_) in zip(before.layers, k, before.plans, strict=True):
            if grid_of(layer) != plan.grid or (keys is not None and keys.shape != plan.k_shape):
                return False
        held = list(zip(q, k, versions[::2], versions[1::2], before.layers, repeat(self.text_keys), strict=False))
        self.read.extend(before.layers)
        for batch, places in before.batches:
            batch.hold_all(held if len(places) == len(held) else [held[place] for place in places])
        return True

    def note_order(self, found: Sequence[tuple[Note, Note]], notes: Sequence[Note], context: Tensor | None) -> None:
        """All that was noted of this forward was taken: the next may be like it."""
        layers = tuple(q[0] for q, _ in found)
        before = _AsBefore.of(layers, self.plans)
        adjacent = tuple(note[:2] for note in notes) == tuple(zip(*before.order, strict=True))
        own = all(k[2] is context for _, k in found)
        self.plans.before = before if adjacent and own and len(set(layers)) == len(layers) else None


def pairs(notes: Sequence[Note]) -> tuple[list[tuple[Note, Note]], list[Note]]:
    """(queries with the keys of the same layer, whichever came first; those that are without a partner)."""
    waiting: dict[int, Note] = {}
    found = []
    for note in notes:
        layer, is_key, *_ = note
        other = waiting.pop(layer, None)
        if other is None or other[1] is is_key:
            waiting[layer] = note
        else:
            found.append((other, note) if is_key else (note, other))
    return found, list(waiting.values())
