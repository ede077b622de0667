"""Standing in for a module's `forward`: what is seen, and what is left when it ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn

from daam_core.capture.forward_wrapper import ForwardWrapper, wrap_forward


class Seen:
    """What a listener was shown."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.outputs.append(output)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_it_sees_what_the_module_gives_out_and_leaves_nothing() -> None:
    module, seen, x = linear(), Seen(), torch.ones(1, 3)
    before = module(x)
    heard = wrap_forward(module, seen)
    assert torch.equal(module(x), before)
    assert torch.equal(module(input=x), before)
    assert [torch.equal(each, before) for each in seen.outputs] == [True, True]
    heard.remove()
    heard.remove()
    assert "forward" not in vars(module)
    module(x)
    assert len(seen.outputs) == 2


def test_two_listeners_come_off_in_any_order() -> None:
    for first in (0, 1):
        module, seen = linear(), (Seen(), Seen())
        heard = [wrap_forward(module, each) for each in seen]
        module(torch.ones(1, 3))
        heard[first].remove()
        module(torch.ones(1, 3))
        heard[1 - first].remove()
        module(torch.ones(1, 3))
        assert sorted(len(each.outputs) for each in seen) == [1, 2]
        assert "forward" not in vars(module)


def test_a_forward_that_accelerate_put_there_is_called_and_put_back() -> None:
    class Doubles(ModelHook):
        def post_forward(self, module: nn.Module, output: Any) -> Any:
            return 2 * output

    module, seen, x = linear(), Seen(), torch.ones(1, 3)
    plain = module(x)
    add_hook_to_module(module, Doubles())
    offloaded = vars(module)["forward"]
    heard = wrap_forward(module, seen)
    assert torch.equal(module(x), 2 * plain)
    assert torch.equal(seen.outputs[0], 2 * plain)
    heard.remove()
    assert vars(module)["forward"] is offloaded
    remove_hook_from_module(module)
    assert torch.equal(module(x), plain)


def test_wrapped_by_somebody_later_it_goes_deaf_and_the_module_still_works() -> None:
    module, seen, x = linear(), Seen(), torch.ones(1, 3)
    plain = module(x)
    heard = wrap_forward(module, seen)
    assert isinstance(heard, ForwardWrapper)
    below = module.forward
    module.forward = lambda x: 2 * below(x)  # type: ignore[method-assign, assignment]
    assert not heard.in_place
    heard.remove()
    assert torch.equal(module(x), 2 * plain)
    assert seen.outputs == []


def test_a_forward_exchanged_on_the_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the WebUI does with `Linear` for LoRA."""
    module, seen, x = linear(), Seen(), torch.ones(1, 3)
    wrap_forward(module, seen)
    original = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: original(self, x) + 1)
    assert torch.equal(module(x), original(module, x) + 1)
    assert torch.equal(seen.outputs[0], original(module, x) + 1)


def test_others_hooks_have_their_say_first() -> None:
    module, seen, x = linear(), Seen(), torch.ones(1, 3)
    early = wrap_forward(module, Seen())
    module.register_forward_hook(lambda m, args, output: 3 * output)
    assert isinstance(early, ForwardWrapper)
    assert not early.is_outermost
    early.remove()
    heard = wrap_forward(module, seen)
    assert torch.equal(module(x), seen.outputs[0])
    heard.remove()
    assert len(module._forward_hooks) == 1
