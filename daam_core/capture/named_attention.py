"""Attention of models that show it to nobody: the name that their module calls it by, wrapped for one run."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .shared_wrapper import SharedWrapper

Override = Callable[..., Any]


class _Thread(threading.local):
    """The overrides of the runs in this thread, innermost last."""

    def __init__(self) -> None:
        self.overrides: list[tuple[Override, bool]] = []


_THREAD = _Thread()


@contextmanager
def named_attention(module: str, name: str, override: Override, *, shown_elsewhere: bool = False) -> Iterator[None]:
    """Call `override(function, *args, **kwargs)` for every attention of a module in this thread.

    Args:
        module: whose attention it is; "" is none.
        name: by which it calls its attention.
        shown_elsewhere: whether the host itself shows calls that carry options to the override in them (ComfyUI): they are left
            alone.
    """
    if not module:
        yield
        return
    wrapper = SharedWrapper(importlib.import_module(module), name, _wrapped)
    entry = (override, shown_elsewhere)
    _THREAD.overrides.append(entry)
    try:
        yield
    finally:
        _THREAD.overrides.remove(entry)
        wrapper.remove()


def _wrapped(below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below)
    def attention(*args: Any, **kwargs: Any) -> Any:
        overrides = _THREAD.overrides
        if not overrides or (overrides[-1][1] and _has_options(kwargs)):
            return below(*args, **kwargs)
        return overrides[-1][0](below, *args, **kwargs)

    return attention


def _has_options(kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("transformer_options"))
