"""Attention of models that hand their options to none of it: the name that they call it by, wrapped for one run."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...daam_core.capture.shared_wrapper import SharedWrapper

Override = Callable[..., Any]
_NAME = "optimized_attention"


class _Thread(threading.local):
    """The overrides of the runs in this thread, innermost last."""

    def __init__(self) -> None:
        self.overrides: list[Override] = []


_THREAD = _Thread()


@contextmanager
def named_attention(module: str, override: Override) -> Iterator[None]:
    """Call `override(function, *args, **kwargs)` for every attention of a module of `comfy.ldm` in this thread.

    A call that carries options is left alone: ComfyUI itself shows it to the override in them.

    Args:
        module: its name behind `comfy.ldm.`; "" is none.
    """
    if not module:
        yield
        return
    wrapper = SharedWrapper(importlib.import_module(f"comfy.ldm.{module}"), _NAME, _wrapped)
    _THREAD.overrides.append(override)
    try:
        yield
    finally:
        _THREAD.overrides.remove(override)
        wrapper.remove()


def _wrapped(below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below)
    def attention(*args: Any, **kwargs: Any) -> Any:
        overrides = _THREAD.overrides
        if not overrides or kwargs.get("transformer_options"):
            return below(*args, **kwargs)
        return overrides[-1](below, *args, **kwargs)

    return attention
