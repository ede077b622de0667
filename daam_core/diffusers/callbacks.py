"""The user's own functions that a pipeline calls between its steps, and whether one of them is what runs now."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from types import CodeType
from typing import Any


class Callbacks:
    """The callbacks among the arguments of one call of a pipeline (`callback_on_step_end`, `callback`).

    A callback may run the model, or the pipeline itself, for a preview or a score: that is told by its frame on the stack,
    which is looked at only where a call has callbacks.

    Args:
        given: the arguments of the call by name.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        found = [value for name, value in given.items() if name.startswith("callback") and callable(value)]
        self._codes = {code for value in found if (code := _code_of(value)) is not None}
        self._around = self._depth()  # the call itself may be made inside such a callback

    def running(self) -> bool:
        """Whether this thread is inside one of them."""
        return self._depth() > self._around

    def _depth(self) -> int:
        depth = 0
        frame = sys._getframe(1) if self._codes else None
        while frame is not None:
            depth += frame.f_code in self._codes
            frame = frame.f_back
        return depth


def _code_of(value: Any) -> CodeType | None:
    """The code that runs where a callable is called; None of one that is not written in Python."""
    while isinstance(value, functools.partial):
        value = value.func
    if not inspect.isroutine(value):
        value = type(value).__call__
    # Behind decorators: those of PyTorch are one code for all functions.
    return getattr(inspect.unwrap(getattr(value, "__func__", value)), "__code__", None)
