"""The layers of a UNet whose way to the sums is known from an earlier forward: from their hooks to where they wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..types import Grid
from .layer_batching import LayerBatch
from .layer_plan import LayerPlan
from .projection_wrapper import Note


class LayerPlans:
    """The plans of a UNet's layers, one for each side that is recorded, while its forwards stay alike."""

    def __init__(self) -> None:
        self._plans: dict[int, Sequence[LayerPlan]] = {}
        self._held: frozenset[int] | None = None
        self._sides: list[list[LayerBatch]] = []

    def get(self, layer: int) -> Sequence[LayerPlan] | None:
        """A layer's plans, None where there are none."""
        return self._plans.get(layer)

    def set(self, layer: int, plans: Sequence[LayerPlan]) -> None:
        """A layer attended in a way that was not known."""
        self._plans[layer], self._held = plans, None

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
        self.read.append(layer)
        held = q, k, q_version, k_version, layer, self.text_keys if of_context else None
        for plan in plans:
            assert plan.batch is not None
            plan.batch.hold(held)
        return True


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
