"""What was noted of a forward: taken at once or layer by layer it gives the same sums, and only what is as before is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.noted_layers import take_notes
from daam_core.capture.planned_layers import LayerPlans, PlannedLayers, pairs
from daam_core.capture.projection_wrapper import Note
from daam_core.errors import NothingRecorded

LAYERS, KEYS, GRID = 12, 6, (2, 2)
CONTEXT = torch.randn(2, KEYS, 5)


def accumulator() -> Accumulator:
    return Accumulator(slice(1, 2), lambda keys, part: torch.eye(keys)[None], StoreOptions(), hold=True)


def notes_of(q: Tensor, k: Tensor, spared: frozenset[int] = frozenset()) -> list[Note]:
    """Of layers `[layers, batch, n, heads * d]`, queries ahead of keys."""
    found: list[Note] = []
    for layer in range(len(q)):
        found.append((layer, False, q, q[layer].clone(), 0))
        found.append((layer, True, CONTEXT, None if layer in spared else k[layer].clone(), 0))
    return found


def take(planned: PlannedLayers, notes: list[Note], at_once: bool) -> bool:
    """As the hooks do; gives whether it was taken at once."""
    if at_once and planned.hold_all(notes, CONTEXT, lambda layer: GRID):
        return True
    found, alone = pairs(notes)
    assert not alone
    for (layer, _, _, q, q_version), (_, _, _, k, k_version) in found:
        assert q is not None
        assert planned.hold(layer, GRID, q, k, q_version, k_version, True)
    planned.note_order(found, notes, CONTEXT)
    return False


def planned_after_a_step(into: Accumulator, k: Tensor, keys: object) -> LayerPlans:
    """Plans of layers of which a first step has shown that what they give out may be held by reference."""
    plans = LayerPlans()
    for layer in range(LAYERS):
        plans.set(layer, [into.add_cross(layer, GRID, torch.ones(2, 4, 8), k[layer].clone(), 2, 0.5, keys=keys)])
    assert not plans.held()  # before that
    into.end_step()
    assert plans.held() == frozenset(range(LAYERS))
    return plans


def test_taken_at_once_and_layer_by_layer_the_sums_are_the_same() -> None:
    k, sums = torch.randn(LAYERS, 2, KEYS, 8), []
    for at_once in (True, False):
        generator, into, keys = torch.Generator().manual_seed(0), accumulator(), object()
        plans, ways = planned_after_a_step(into, k, keys), []
        for _ in range(11):
            planned = PlannedLayers(plans, keys, False)
            spared = plans.spared(keys)
            ways.append(take(planned, notes_of(torch.randn(LAYERS, 2, 4, 8, generator=generator), k, spared), at_once))
            assert planned.read == list(range(LAYERS))
            into.end_step()
        assert ways == [False, *[at_once] * 10] and spared
        into.release()
        (part,) = into.sums.values()
        assert part.num_terms == 2 * LAYERS * 12
        sums.append(part.both)
    assert torch.equal(*sums)


def _without_a_layer(notes: list[Note]) -> list[Note]:
    return notes[:-2]


def _in_another_order(notes: list[Note]) -> list[Note]:
    return [notes[1], notes[0], *notes[2:]]


def _of_another_text(notes: list[Note]) -> list[Note]:
    layer, is_key, _, k, version = notes[5]
    return [*notes[:5], (layer, is_key, CONTEXT.clone(), k, version), *notes[6:]]


def _of_itself(notes: list[Note]) -> list[Note]:
    layer, is_key, _, q, version = notes[4]
    return [*notes[:4], (layer, is_key, CONTEXT, q, version), *notes[5:]]


def _of_another_size(notes: list[Note]) -> list[Note]:
    layer, is_key, source, _, version = notes[4]
    return [*notes[:4], (layer, is_key, source, torch.randn(2, 9, 8), version), *notes[5:]]


def _of_another_precision(notes: list[Note]) -> list[Note]:
    layer, key, source, q, version = notes[-2]
    assert q is not None
    return [*notes[:-2], (layer, key, source, q.bfloat16(), version), notes[-1]]


def _of_more_columns(notes: list[Note]) -> list[Note]:
    layer, is_key, source, _, version = notes[5]
    return [*notes[:5], (layer, is_key, source, torch.randn(2, KEYS + 1, 8), version), *notes[6:]]


@pytest.mark.parametrize(
    "change",
    [
        _without_a_layer,
        _in_another_order,
        _of_another_text,
        _of_itself,
        _of_another_size,
        _of_another_precision,
        _of_more_columns,
    ],
)
def test_another_forward_is_looked_at_layer_by_layer(change: Callable[[list[Note]], list[Note]]) -> None:
    k, into, keys = torch.randn(LAYERS, 2, KEYS, 8), accumulator(), object()
    plans = planned_after_a_step(into, k, keys)
    take(PlannedLayers(plans, keys, False), notes_of(torch.randn(LAYERS, 2, 4, 8), k), False)
    into.end_step()
    notes = notes_of(torch.randn(LAYERS, 2, 4, 8), k)
    planned = PlannedLayers(plans, keys, False)
    assert not planned.hold_all(change(notes), CONTEXT, lambda layer: GRID)
    assert not planned.hold_all(notes, CONTEXT.clone(), lambda layer: GRID)
    assert not planned.hold_all(notes, CONTEXT, lambda layer: GRID if layer < 7 else (1, 4))
    assert planned.read == []
    assert planned.hold_all(notes, CONTEXT, lambda layer: GRID)


class Hook:
    """A layer's hook, as far as what was noted needs it."""

    def __init__(self) -> None:
        self.grid_hook, self.key_weights, self.is_cross = SimpleNamespace(grid=GRID), None, True


@pytest.mark.parametrize("which", [-2, -1])
def test_what_was_written_into_behind_its_note_is_not_read_as_it_was(which: int) -> None:
    """A layer that is not as it was planned is read anew when the model is through: of what stands there then."""
    k, into = torch.randn(LAYERS, 2, KEYS, 8), accumulator()
    plans = planned_after_a_step(into, k, object())
    notes = [
        (layer, is_key, source, None if x is None else x.clone(), 0)
        for layer, is_key, source, x, _ in _of_another_size(notes_of(torch.randn(LAYERS, 2, 4, 8), k))
    ]
    read: list[int] = []

    def reads(layer: int, *_: Any) -> None:
        read.append(layer)

    hooks = cast(Any, [Hook() for _ in range(LAYERS)])
    take_notes(notes, PlannedLayers(plans, object(), False), CONTEXT, hooks, reads)
    assert read == [2]
    written = notes[4:6][which][3]
    assert written is not None
    written.mul_(2)
    with pytest.raises(NothingRecorded, match="began to write"):
        take_notes(notes, PlannedLayers(plans, object(), False), CONTEXT, hooks, reads)
