"""Functions of the process that traces wrap: counted, taken out in any order, put back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from daam_core.capture.class_hook import ClassHook, Finish
from daam_core.capture.shared_wrapper import SharedWrapper, aside


def doubled(below: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: 2 * below(*args)


def test_one_wrapper_for_all_until_the_last_leaves() -> None:
    table = {"one": lambda: 1}
    own = table["one"]
    first, second = SharedWrapper(table, "one", doubled), SharedWrapper(table, "one", doubled)
    assert table["one"]() == 2
    first.remove()
    first.remove()
    assert table["one"]() == 2
    second.remove()
    assert table["one"] is own


def test_a_function_that_another_puts_over_it_stays() -> None:
    module: Any = SimpleNamespace(f=lambda: 1)
    wrapper = SharedWrapper(module, "f", doubled)
    below = module.f
    module.f = lambda: below() + 10
    wrapper.remove()
    assert module.f() == 12


def test_a_function_in_its_place_is_wrapped_anew() -> None:
    module: Any = SimpleNamespace(f=lambda: 1)
    first = SharedWrapper(module, "f", doubled)
    module.f = lambda: 5
    second = SharedWrapper(module, "f", doubled)
    assert module.f() == 10
    first.remove()
    second.remove()
    assert module.f() == 5


def test_a_wrapper_that_is_taken_aside_comes_back_only_where_it_is_needed() -> None:
    """Traces come and go meanwhile, as in other threads; and the block may be left by an error."""
    module: Any = SimpleNamespace(f=lambda: 1)
    own, first = module.f, SharedWrapper(module, "f", doubled)
    wrapper = module.f
    with contextlib.suppress(ValueError), aside(module, "f", wrapper):
        assert module.f is own
        raise ValueError
    assert module.f is wrapper
    with aside(module, "f", wrapper):
        with aside(module, "f", wrapper):
            second = SharedWrapper(module, "f", doubled)
            first.remove()
        assert module.f is own, "another call has it aside, too"
    assert module.f is wrapper, "the second trace needs it"
    with aside(module, "f", wrapper):
        second.remove()
    assert module.f is own


class Base:
    def method(self, x: int) -> int:
        if x < 0:
            raise ValueError
        return x


class Derived(Base):
    pass


def test_a_method_of_a_class_is_seen_and_left_as_it_was_inherited() -> None:
    seen: list[Any] = []

    def begin(self: Any, args: Any, kwargs: Any) -> Finish:
        seen.append((type(self), args, kwargs))
        return seen.append

    hook = ClassHook(Derived, "method", begin)
    assert Derived().method(3) == 3 and Base().method(4) == 4
    try:
        Derived().method(x=-1)
    except ValueError:
        seen.append("raised")
    hook.remove()
    hook.remove()
    assert Derived().method(5) == 5
    assert seen == [(Derived, (3,), {}), 3, (Derived, (), {"x": -1}), None, "raised"]
    assert "method" not in vars(Derived)
