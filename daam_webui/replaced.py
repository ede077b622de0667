"""A function or method of the host's in the place of which another one stands for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def replaced(owner: Any, name: str, wrap: Wrap) -> Iterator[None]:
    """`owner.name` wrapped. A wrapper that somebody else put another one over stays below it and only passes calls on."""
    own, below = name in vars(owner), getattr(owner, name)
    wrapped = wrap(below)
    active = True

    def replacement(*args: Any, **kwargs: Any) -> Any:
        return (wrapped if active else below)(*args, **kwargs)

    setattr(owner, name, replacement)
    try:
        yield
    finally:
        active = False
        if vars(owner).get(name) is replacement:
            if own:
                setattr(owner, name, below)
            else:  # a method: the object finds its class's again
                delattr(owner, name)
