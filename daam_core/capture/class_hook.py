"""A hook on every call of one method of a class, whichever object of it, or copy of an object, is called."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .shared_wrapper import SharedWrapper

Finish = Callable[[Any], None]
"""Called with what the method returned, None where it raised."""
Begin = Callable[[Any, Sequence[Any], Mapping[str, Any]], Finish | None]
"""Called with (object, positional arguments, named arguments) before a call; gives what is to be called at its end, or None
where this call is of no interest."""

logger = logging.getLogger("daam_lens")
_CALLBACKS: dict[tuple[type, str], list[Begin]] = {}


class ClassHook:
    """Calls `begin` before every call of `owner.name`, and what it gave after it, until `remove`.

    What these raise is logged and ends there: the method is called, and what it returned is returned.
    Nothing is stored on the object, so that a copy of the object, made inside a trace, calls its own method.
    """

    def __init__(self, owner: type, name: str, begin: Begin) -> None:
        self._key, self._begin = (owner, name), begin
        _CALLBACKS.setdefault(self._key, []).append(begin)
        self._wrapper = SharedWrapper(owner, name, functools.partial(_hooked, self._key))

    def remove(self) -> None:
        """Take the hook off. Does nothing the second time."""
        callbacks = _CALLBACKS.get(self._key, [])
        if self._begin in callbacks:
            callbacks.remove(self._begin)
        if not callbacks:
            _CALLBACKS.pop(self._key, None)
        self._wrapper.remove()


def _hooked(key: tuple[type, str], below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = [_safely(begin, self, args, kwargs) for begin in list(_CALLBACKS.get(key, ()))]
        output = None
        try:
            output = below(self, *args, **kwargs)
        finally:
            for finish in reversed(begun):
                if finish is not None:
                    _safely(finish, output)
        return output

    return call


def _safely(callback: Callable[..., Any], *args: Any) -> Any:
    """What a callback gives, None where it raises."""
    try:
        return callback(*args)
    except Exception:
        logger.exception("The recording was left by an error of its own; the picture goes on.")
        return None
