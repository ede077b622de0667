"""A bounded memory, for what a page may ask for long after it was made."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class LRUCache(Generic[T]):
    """Values under names that nobody can guess; the one that was not asked for the longest goes first. For many threads.

    Args:
        most: how many values are kept.
        most_bytes: how many bytes they take together; the newest is kept whatever it takes.
        size: bytes of a value.
    """

    def __init__(self, most: int, most_bytes: int, size: Callable[[T], int]) -> None:
        self._most, self._most_bytes, self._size = most, most_bytes, size
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def keep(self, value: T, name: str | None = None) -> str:
        """Remember a value, under a new name unless one is given; its name."""
        name = name or secrets.token_urlsafe(12)
        with self._lock:
            self._kept[name] = value, self._size(value)
            while len(self._kept) > 1 and (len(self._kept) > self._most or self._bytes() > self._most_bytes):
                self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> T | None:
        """The value of that name, None where it is not (or no more) there."""
        with self._lock:
            if name not in self._kept:
                return None
            self._kept.move_to_end(name)
            return self._kept[name][0]

    def named(self, wanted: Callable[[T], bool]) -> str | None:
        """The name of a value that is `wanted`, None where none is."""
        with self._lock:
            name = next((name for name, (value, _) in self._kept.items() if wanted(value)), None)
            if name is not None:
                self._kept.move_to_end(name)
            return name

    def values(self) -> list[T]:
        """All of them, the one that was asked for last at the end."""
        with self._lock:
            return [value for value, _ in self._kept.values()]

    def _bytes(self) -> int:
        return sum(size for _, size in self._kept.values())
