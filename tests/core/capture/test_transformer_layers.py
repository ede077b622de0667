"""A layer of a traced model knows that a thread is inside of it, and its copies and successors do not."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.transformer_layers import LayerWrapper
from daam_core.capture.transformer_scopes import THREAD, Scope


class Heard:
    """Callbacks of a recording that writes down what it is told, and expects one layer."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, arguments: Mapping[str, Any]) -> bool:
        return True

    def wants(self, layer: str) -> bool:
        return True

    def expects(self, layer: str) -> bool:
        return layer == "expected"

    def hold(self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> bool:
        self.told.append(("hold", layer))
        return True

    def attention(self, layer: str, number: int, call: AttentionCall) -> None:
        raise AssertionError("held calls are not read")

    def unread(self, layer: str, processor: str) -> None:
        self.told.append(("unread", layer, processor))

    def end(self) -> None:
        raise AssertionError("no model ends here")

    def failed(self, error: Exception) -> None:
        raise error


class Attends(nn.Module):
    """Notes which layers the thread is inside of; attends as often as it is told to."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.processor = times, nn.Identity()
        self.inside: list[str] = []

    def forward(self, x: torch.Tensor, fails: bool = False) -> torch.Tensor:
        for scope in THREAD.running.scopes:
            self.inside += [name for name, _ in scope.layers]
            for _ in range(self.times):
                scope.holds((x, x, x), {}, False)
        if fails:
            raise ValueError("this layer fails")
        return x + 1


def running(owner: object, heard: Heard) -> Scope:
    scope = Scope(owner, nn.Identity(), heard, False)
    THREAD.running.scopes.append(scope)
    return scope


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    yield
    THREAD.running.scopes.clear()


def test_a_layer_that_attends_and_one_that_does_not() -> None:
    owner, heard, x = object(), Heard(), torch.zeros(2)
    one, other, unexpected = Attends(1), Attends(0), Attends(1)
    for layer, name in ((one, "expected"), (other, "expected"), (unexpected, "else")):
        LayerWrapper(layer, name, owner, heard)
    assert torch.equal(one(x), x + 1) and not heard.told  # no call of the model runs
    scope = running(owner, heard)
    assert torch.equal(one(x), x + 1) and torch.equal(other(x), x + 1) and torch.equal(unexpected(x), x + 1)
    assert heard.told == [("hold", "expected"), ("unread", "expected", "Identity")]
    assert one.inside == ["expected"] and not unexpected.inside and not scope.layers
    heard.told.clear()
    with pytest.raises(ValueError, match="this layer fails"):
        other(x, fails=True)
    assert not heard.told  # nothing is missed of a layer that raised
    scope.layers.clear()
    scope.alive = False
    other(x)
    assert not heard.told


def test_another_models_call_is_not_this_ones() -> None:
    heard, layer, x = Heard(), Attends(1), torch.zeros(2)
    LayerWrapper(layer, "expected", object(), heard)
    running(object(), heard)
    assert torch.equal(layer(x), x + 1) and not layer.inside and not heard.told


def test_a_copy_calls_nobody_and_below_anothers_forward_nothing_is_called_once_it_is_removed() -> None:
    owner, heard, layer, x = object(), Heard(), Attends(1), torch.zeros(2)
    wrapper = LayerWrapper(layer, "expected", owner, heard)
    running(owner, heard)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), x + 1) and not twin.inside and not heard.told
    theirs = layer.forward
    layer.forward = lambda *args: theirs(*args) * 2  # type: ignore[method-assign, assignment]
    wrapper.remove()
    assert torch.equal(layer(x), 2 * (x + 1)) and not heard.told
