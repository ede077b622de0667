"""Values out of a record's JSON header and tensors, each checked for its kind and range: nothing is converted, only taken."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import BadRecord, quoted
from ..types import Grid

T = TypeVar("T")
LARGEST = 1e15
"""No number that a recording holds comes near it; sums and squares of smaller ones stay finite in float32."""
_GRID = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", re.ASCII)


@dataclass(frozen=True)
class Values:
    """A JSON object, and what it is in the record (for the sentences).

    Every method raises BadRecord where its entry is missing or of another kind.
    """

    data: Mapping[str, Any]
    where: str

    def get(self, name: str, default: Any = None) -> Any:
        """An entry as it is."""
        return self.data.get(name, default)

    def inside(self, name: str) -> Values:
        """An entry that is an object."""
        found = self.data.get(name)
        if not isinstance(found, Mapping):
            raise self._bad(name, "an object")
        return Values(found, f"{self.where}, {name}")

    def each(self, name: str) -> Iterator[Values]:
        """The objects of a list."""
        for i, one in enumerate(self._list(name)):
            if not isinstance(one, Mapping):
                raise self._bad(name, "a list of objects")
            yield Values(one, f"{self.where}, {name} {i}")

    def text(self, name: str) -> str:
        """A text."""
        found = self.data.get(name)
        if not isinstance(found, str):
            raise self._bad(name, "a text")
        return found

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        found = self._list(name)
        if not all(isinstance(x, str) for x in found):
            raise self._bad(name, "a list of texts")
        return found

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        found = self.data.get(name, default)
        if not isinstance(found, bool):
            raise self._bad(name, "true or false")
        return found

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number within a range."""
        found: Any = self.data.get(name)
        if not _is_whole(found, least, most):
            raise self._bad(name, f"a whole number from {least} to {most}")
        return int(found)

    def wholes(self, name: str, least: int, most: int, count: int | None = None) -> list[int]:
        """A list of whole numbers within a range, of a certain length."""
        found = self._list(name)
        if (count is not None and len(found) != count) or not all(_is_whole(x, least, most) for x in found):
            raise self._bad(name, f"{count or 'a list of'} whole numbers from {least} to {most}")
        return found

    def spans(self, name: str, most: int) -> tuple[tuple[int, int], ...]:
        """A list of pairs (first, behind the last) of whole numbers up to `most`, in order, none into the next."""
        found = self._list(name)
        flat = [x for pair in found if isinstance(pair, list) and len(pair) == 2 for x in pair]
        whole = len(flat) == 2 * len(found) and all(_is_whole(x, 0, most) for x in flat)
        if not whole or flat != sorted(flat) or any(start == stop for start, stop in found):
            raise self._bad(name, f"a list of pairs of whole numbers from 0 to {most}, in order")
        return tuple((a, b) for a, b in found)

    def number(self, name: str) -> float:
        """A number."""
        found: Any = self.data.get(name)
        if not _is_number(found):
            raise self._bad(name, "a number")
        return float(found)

    def numbers(self, name: str) -> list[float]:
        """A list of numbers."""
        found = self._list(name)
        if not all(map(_is_number, found)):
            raise self._bad(name, "a list of numbers")
        return [float(x) for x in found]

    def wholes_by_name(self, least: int, most: int) -> dict[str, int]:
        """All entries, each a whole number within a range."""
        return {name: self.whole(name, least, most) for name in self.data}

    def whole_lists(self, least: int, most: int) -> dict[str, list[int]]:
        """All entries, each a list of whole numbers within a range."""
        return {name: self.wholes(name, least, most) for name in self.data}

    def _list(self, name: str) -> list[Any]:
        found = self.data.get(name)
        if not isinstance(found, list):
            raise self._bad(name, "a list")
        return found

    def _bad(self, name: str, wanted: str) -> BadRecord:
        return BadRecord(f"In {self.where}, {quoted(name, 40)} is not {wanted}; the file was damaged or changed.")


def by_grid(named: Mapping[str, T]) -> dict[Grid, T]:
    """Entries named "HxW" under (H, W)."""
    found: dict[Grid, T] = {}
    for name, value in named.items():
        match = _GRID.fullmatch(name)
        if match is None:
            raise BadRecord(f"This record has a part {quoted(name, 40)} where a resolution such as '16x16' belongs.")
        found[int(match[1]), int(match[2])] = value
    return found


def finite(x: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this dtype and shape whose values are finite and of a size that attention can have."""
    if tuple(x.shape) != shape or x.dtype != dtype:
        raise BadRecord(f"This record's {name[:40]} is {x.dtype} {tuple(x.shape)} where {dtype} {shape} was promised.")
    if x.numel() and not float(x.abs().max()) <= LARGEST:
        raise BadRecord(f"This record's {name[:40]} holds values that are no attention; record the picture again.")
    return x


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST and math.isfinite(value)
