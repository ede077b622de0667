"""What a person gives to the functions that draw: looked at before anything is drawn, and told in one sentence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import BadArgument, quoted

T = TypeVar("T")


def is_row(values: Any) -> bool:
    """Whether values can be read one after the other, in order."""
    if isinstance(values, (str, bytes, Mapping, Set)):
        return False
    try:
        iter(values)
    except TypeError:  # an array without axes, too
        return False
    return True


def checked_row(values: Iterable[T], what: str) -> list[T]:
    """Values in order, as a list. Raises BadArgument, whose sentence begins with `what` they should have been."""
    if is_row(values):
        return list(values)
    raise BadArgument(f"{what}, not {quoted(values, 60)}.")


def checked_sized(values: Sequence[T], what: str) -> Sequence[T]:
    """Values in order whose number is known, each found by its own. They stay as they came where they can be looked up so, as
    a video that is read from its file frame by frame. Raises BadArgument, see `checked_row`."""
    if isinstance(values, Sized) and is_row(values):
        return values if hasattr(values, "__getitem__") else list(values)
    raise BadArgument(f"{what}, not {quoted(values, 60)}.")


def checked_texts(values: Iterable[str], what: str) -> list[str]:
    """Texts in order, as a list. Raises BadArgument, see `checked_row`."""
    texts = checked_row(values, what)
    for text in texts:
        if not isinstance(text, str):
            raise BadArgument(f"{what}; {quoted(text, 60)} is none.")
    return texts


def checked_heats(heats: Mapping[str, T]) -> Mapping[str, T]:
    """Maps by the words that they are of. Raises BadArgument."""
    if not isinstance(heats, Mapping) or not all(isinstance(word, str) for word in heats):
        raise BadArgument(f"Maps of several words are given by word, {{'house': map}}, not {quoted(heats, 60)}.")
    return heats


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Where a file is written. Raises BadArgument for what is no path."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise BadArgument(f"A file's path is a text or a Path, not {quoted(path, 60)}.")
    return Path(path)


def is_number(value: Any, least: float, most: float) -> bool:
    """Whether a value is a real number of `least` to `most`."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(least <= value <= most)  # type: ignore[operator]


def checked_pixels(value: int, name: str, most: int) -> int:
    """A whole number of 1 to `most` pixels. Raises BadArgument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise BadArgument(f"{name} is a whole number of pixels from 1 to {most}, not {quoted(value, 40)}.")
    return int(value)


def checked_top(top: float | None) -> float | None:
    """The heat that gets the brightest colour, or None for the map's own maximum. Raises BadArgument for no number."""
    if top is None:
        return None
    try:
        if isinstance(top, Real) and math.isfinite(top):
            return float(top)
    except OverflowError:
        pass
    raise BadArgument(f"top is the heat of the brightest colour, a number, not {quoted(top, 40)}.")
