"""What stands in for a projection's forward, and for its owner's: what it reads, what it notes, what is left of it."""

from __future__ import annotations

import copy
from threading import Thread, get_ident
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core.capture.planned_layers import pairs
from daam_core.capture.projection_hooks import GridHook
from daam_core.capture.projection_wrapper import NOTE, READ, SKIP, GridWrapper, Note, ProjectionWrapper


class Forward:
    """A forward that is recorded in this thread."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self.context: Tensor | None = None
        self.notes: list[Note] = []
        self.spared: frozenset[int] = frozenset()

    def dispatch(self, index: int, grid: tuple[int, int], q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        raise AssertionError("nothing is dispatched here")


def wrapped(is_key: bool, mode: int) -> tuple[nn.Linear, ProjectionWrapper, Forward, list[Tensor]]:
    """(a layer, what stands in for its forward, the forward that is recorded, what was read at once)."""
    layer, forward, read = nn.Linear(2, 3), Forward(), []
    wrapper = ProjectionWrapper(layer, lambda module, args, output: read.append(output), forward, 7, is_key)
    wrapper.mode = mode
    return layer, wrapper, forward, read


@pytest.mark.parametrize("is_key", [False, True])
def test_what_a_projection_gives_out_is_read_noted_or_neither(is_key: bool) -> None:
    x, text = torch.randn(1, 2), torch.randn(1, 2)
    for mode in (READ, NOTE, SKIP):
        layer, wrapper, forward, read = wrapped(is_key, mode)
        forward.context, forward.spared = text, frozenset({6})
        plain = nn.functional.linear(text, layer.weight, layer.bias)
        given = layer(text)
        assert torch.equal(given, plain)
        assert [one is given for one in read] == ([True] if mode == READ else [])
        assert [tuple(map(id, note[:4])) for note in forward.notes] == (
            [tuple(map(id, (7, is_key, text, given)))] if mode == NOTE else []
        )
        forward.thread = 0  # of no recording
        layer(x)
        assert len(read) + len(forward.notes) == (mode != SKIP)
        wrapper.remove()
        forward.thread = get_ident()
        layer(x)
        assert len(read) + len(forward.notes) == (mode != SKIP) and "forward" not in vars(layer)


def test_spared_keys_are_not_held_on_to() -> None:
    """Only of the text that the model was given; queries never."""
    text, other = torch.randn(1, 2), torch.randn(1, 2)
    for is_key, source, kept in ((True, text, False), (True, other, True), (False, text, True)):
        layer, _, forward, _ = wrapped(is_key, NOTE)
        forward.context, forward.spared = text, frozenset({7})
        layer(source)
        ((_, _, told, output, _),) = forward.notes
        assert told is source and (output is not None) is kept


def test_a_write_after_the_note_can_be_told() -> None:
    layer, _, forward, _ = wrapped(False, NOTE)
    with torch.no_grad():
        layer(torch.randn(1, 2))
        ((_, _, _, output, version),) = forward.notes
        assert output is not None and output._version == version
        output += 1
    assert output._version != version


def test_what_has_no_counter_is_read_at_once() -> None:
    layer, _, forward, read = wrapped(False, NOTE)
    with torch.inference_mode():
        layer(torch.randn(1, 2))
    assert len(read) == 1 and not forward.notes


def test_another_thread_and_a_copy_are_nobodys() -> None:
    layer, _, forward, read = wrapped(False, NOTE)
    x = torch.randn(1, 2)
    thread = Thread(target=layer, args=(x,))
    thread.start()
    thread.join()
    forward.thread, kept = 0, forward.thread
    twin = copy.deepcopy(layer)
    forward.thread = kept
    assert torch.equal(twin(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert not read and not forward.notes


def test_queries_and_keys_find_each_other_whichever_came_first() -> None:
    def note(layer: int, is_key: bool, value: Any = None) -> Note:
        return layer, is_key, value, None, 0

    q1, k1, q2, k2, lost, late = note(1, False), note(1, True), note(2, False), note(2, True), note(3, True), note(1, False)
    found, alone = pairs([q1, k2, k1, q2, lost, late])
    assert [tuple(map(id, pair)) for pair in found] == [(id(q1), id(k1)), (id(q2), id(k2))]
    assert [id(one) for one in alone] == [id(lost), id(late)]


class Owner(nn.Module):
    def forward(self, hidden_states: Tensor, scale: float = 1.0) -> Tensor:
        return scale * hidden_states


def test_the_grid_is_that_of_the_input_and_nothing_is_left() -> None:
    """Given in any way; below another's wrapper nothing is read any more once it is removed, and the module gives the same."""
    owner, forward = Owner(), Forward()
    hook = GridHook(forward, owner)
    handle = hook.attach(by_hook=False)
    assert isinstance(handle, GridWrapper)
    for h, w in ((2, 3), (5, 4)):
        x = torch.randn(1, 2, h, w)
        assert torch.equal(owner(x, scale=2.0) if h == 2 else owner(hidden_states=x), 2 * x if h == 2 else x)
        assert hook.grid == (h, w)
    owner(torch.randn(1, 6, 2))  # positions one behind the other tell no grid
    forward.thread = 0
    owner(torch.randn(1, 2, 7, 7))
    assert hook.grid == (5, 4)
    theirs = owner.forward
    owner.forward = lambda *args: theirs(*args) * 2  # type: ignore[method-assign, assignment]
    handle.remove()
    x = torch.randn(1, 2, 2, 2)
    assert torch.equal(owner(x), 2 * x)
    del owner.forward
    assert torch.equal(owner(x), x) and "forward" not in vars(owner)


def test_the_grid_of_a_module_that_others_hook_is_read_by_a_hook() -> None:
    owner, forward = Owner(), Forward()
    owner.register_forward_pre_hook(lambda module, args: (args[0][..., :1],))
    hook = GridHook(forward, owner)
    handle = hook.attach(by_hook=False)
    owner(torch.randn(1, 2, 3, 4))
    assert hook.grid == (3, 1) and "forward" not in vars(owner)
    handle.remove()
    owner(torch.randn(1, 2, 8, 8))
    assert hook.grid == (3, 1)


@pytest.mark.parametrize("mode", [READ, NOTE])
def test_what_is_no_tensor_is_handed_on_as_it_is(mode: int) -> None:
    """A projection may give out its bias apart, an owner may be given two things: both are the model's own business."""

    class Apart(nn.Linear):
        def forward(self, input: Tensor) -> Any:
            return super().forward(input), None

    layer, forward, read = Apart(2, 3), Forward(), []
    wrapper = ProjectionWrapper(layer, lambda module, args, output: read.append((args, output)), forward, 7, False)
    wrapper.mode = mode
    x = torch.randn(1, 2)
    given = layer(input=x)
    assert given[1] is None and not forward.notes
    assert [(args[0] is x, output is given) for args, output in read] == [(True, True)]


def test_an_owner_that_is_given_a_tuple_has_the_grid_it_had() -> None:
    class Both(nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    for by_hook in (False, True):
        owner = Both()
        hook = GridHook(Forward(), owner)
        handle = hook.attach(by_hook)
        owner(torch.zeros(1, 2, 3, 5))
        pair = (torch.zeros(1, 2, 7, 7), None)
        assert owner(pair) is pair and hook.grid == (3, 5)
        handle.remove()
