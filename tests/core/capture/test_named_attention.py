"""The name by which a module calls its attention: wrapped for one run, in its own thread, and put back whatever happens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import pytest

from daam_core.capture.named_attention import named_attention

NAME = "optimized_attention"
OPTIONS = {"optimized_attention_override": print}


def host_attention(*args: Any, **kwargs: Any) -> str:
    """In place of a host's."""
    return "host"


@pytest.fixture
def module() -> Iterator[Any]:
    """`host.own`, with an attention of its own by name."""
    names = ("host", "host.own")
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
    own: Any = sys.modules["host.own"]
    own.optimized_attention = host_attention
    yield own
    for name, was in before.items():
        if was is None:
            del sys.modules[name]
        else:
            sys.modules[name] = was


def named(override: Any) -> AbstractContextManager[None]:
    return named_attention("host.own", NAME, override, shown_elsewhere=True)


def listener(heard: list[Any]) -> Callable[..., Any]:
    def override(function: Any, *args: Any, **kwargs: Any) -> Any:
        heard.append(args)
        return function(*args, **kwargs)

    return override


def test_calls_without_options_are_handed_on(module: Any) -> None:
    heard: list[Any] = []
    with named(listener(heard)):
        assert module.optimized_attention(1, 2) == "host"
        assert module.optimized_attention(3, transformer_options=OPTIONS) == "host", "ComfyUI shows these itself"
    assert heard == [(1, 2)]
    assert module.optimized_attention is host_attention


def test_calls_with_options_are_heard_where_nobody_else_shows_them(module: Any) -> None:
    heard: list[Any] = []
    with named_attention("host.own", NAME, listener(heard)):
        assert module.optimized_attention(3, transformer_options=OPTIONS) == "host"
    assert heard == [(3,)]


def test_a_family_without_such_a_module_wraps_nothing(module: Any) -> None:
    with named_attention("", NAME, print):
        assert module.optimized_attention is host_attention


def test_a_run_that_fails_puts_the_name_back(module: Any) -> None:
    with pytest.raises(RuntimeError, match="out of memory"), named(print):
        raise RuntimeError("out of memory")
    assert module.optimized_attention is host_attention


def test_each_run_hears_its_own_thread(module: Any) -> None:
    """Two runs at once, and a third thread that records nothing."""
    here: list[Any] = []
    there: list[Any] = []
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with named(listener(there)):
            inside.set()
            done.wait(10)
            module.optimized_attention("there")

    runs = threading.Thread(target=other)
    runs.start()
    assert inside.wait(10)
    with named(listener(here)):
        module.optimized_attention("here")
        stranger = threading.Thread(target=module.optimized_attention, args=("nobody",))
        stranger.start()
        stranger.join()
    done.set()
    runs.join()
    assert (here, there) == ([("here",)], [("there",)])
    assert module.optimized_attention is host_attention


def test_a_run_inside_a_run_is_heard_by_the_inner_one(module: Any) -> None:
    outer: list[Any] = []
    inner: list[Any] = []
    with named(listener(outer)):
        with named(listener(inner)):
            module.optimized_attention(1)
        module.optimized_attention(2)
    assert (outer, inner) == ([(2,)], [(1,)])
