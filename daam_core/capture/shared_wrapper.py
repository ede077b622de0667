"""Functions that the whole process shares, wrapped while at least one trace needs it and put back by the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CellType
from typing import Any

_LOCK = threading.RLock()
_MISSING = object()


@dataclass(eq=False)
class _Wrapped:
    """One wrapped function.

    Attributes:
        own: what the owner itself held before, `_MISSING` where it inherited the function.
        wrapper: what stands there now.
        users: how many traces need it.
        aside: how many calls have it taken aside for a moment, see `aside`.
    """

    own: Any
    wrapper: Any
    users: int = 0
    aside: int = 0


_WRAPPED: dict[tuple[int, Any], list[_Wrapped]] = {}


class SharedWrapper:
    """Wraps `owner[name]` of a dictionary, or `owner.name` of a module, class or cell of a closure, until `remove`.

    All traces share one wrapper, so it must find out by itself whom to call. Traces may leave in any order. Where
    somebody else put a function of their own over the wrapper, it stays below, and must do nothing when no trace needs it.

    Args:
        owner: whose function it is; it must outlive the wrapper.
        name: its key or attribute.
        wrap: makes the wrapper from the function that was there.
    """

    def __init__(self, owner: Any, name: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner, self._name = owner, name
        with _LOCK:
            entries = _WRAPPED.setdefault((id(owner), name), [])
            current = self._get()
            self._entry = next((e for e in entries if e.wrapper is current or (e.aside and e.own is current)), None)
            if self._entry is None:  # the first, or somebody put another function in its place since
                self._entry = _Wrapped(self._own(), wrap(current))
                entries.append(self._entry)
                self._set(self._entry.wrapper)
            self._entry.users += 1

    def remove(self) -> None:
        """Put back what was there, if nobody else needs the wrapper. Does nothing the second time."""
        with _LOCK:
            entry, self._entry = self._entry, None
            if entry is None:
                return
            entry.users -= 1
            if entry.users:
                return
            entries = _WRAPPED.get((id(self._owner), self._name), [])
            if entry in entries:
                entries.remove(entry)
            if not entries:
                _WRAPPED.pop((id(self._owner), self._name), None)
            if self._get() is entry.wrapper:
                self._set(entry.own)

    def _get(self) -> Any:
        if isinstance(self._owner, MutableMapping):
            return self._owner[self._name]
        return getattr(self._owner, self._name)

    def _own(self) -> Any:
        if isinstance(self._owner, (MutableMapping, CellType)):
            return self._get()
        return vars(self._owner).get(self._name, _MISSING)

    def _set(self, value: Any) -> None:
        if isinstance(self._owner, MutableMapping):
            self._owner[self._name] = value
        elif value is _MISSING:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, value)


@contextmanager
def aside(owner: Any, name: str, wrapper: Any) -> Iterator[None]:
    """While the block runs, `owner.name` of a module is what stood there before its wrapper, where the wrapper stands there.

    Traces may come and go meanwhile in other threads: the wrapper is put back only where one still needs it.
    """
    with _LOCK:
        entry = next((one for one in _WRAPPED.get((id(owner), name), ()) if one.wrapper is wrapper), None)
        if entry is not None:
            entry.aside += 1
            if getattr(owner, name) is wrapper:
                setattr(owner, name, entry.own)
    try:
        yield
    finally:
        with _LOCK:
            if entry is not None:
                entry.aside -= 1
                if entry.users and not entry.aside and getattr(owner, name) is entry.own:
                    setattr(owner, name, wrapper)
