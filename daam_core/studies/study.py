"""What a study is: units of work, rows measured from them, and a report at the end."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .report import Report

if TYPE_CHECKING:
    import pandas as pd

    from .model_runner import ModelRunner

Value = str | int | float | bool | None
Row = dict[str, Value]
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that can be resumed: mostly one prompt with one seed.

    Attributes:
        key: stable and unique in its study: the same work has the same key tomorrow, whatever else is asked for.
        content: plain JSON (str, int, float, bool, None, lists, dicts), everything that `measure` needs to know of it.
    """

    key: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What came out of a unit.

    Attributes:
        rows: one flat dict a measurement; columns may differ between rows. No NaN: None stands for "there is none".
        pictures: pictures to keep for the report by name, uint8 `[H, W, 3]` or `[H, W]`; few and small.
    """

    rows: list[Row]
    pictures: Mapping[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Everything that was measured, in the order of the units.

    Attributes:
        rows: one line a row, first column `unit` (its key).
        pictures: files of kept pictures by (unit key, name).
        units: the units themselves.
    """

    rows: pd.DataFrame
    pictures: Mapping[tuple[str, str], Path]
    units: tuple[Unit, ...]


class Study(ABC):
    """One of the paper's questions. Subclasses hold no state: everything is in the options and the unit.

    Attributes:
        name: what the command line calls it.
        outside: options (attribute names) that change which units there are or what is concluded, but not the rows of a
            unit. All other options decide where rows are kept, so that rows of different settings never mix.
    """

    name: ClassVar[str]
    outside: ClassVar[frozenset[str]] = frozenset()

    def add_options(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027 (most studies have some, none needs any)
        """Add the study's own options; the common ones (--model, --prompts, --seeds, --limit, …) are there already."""

    @abstractmethod
    def units(self, options: argparse.Namespace) -> list[Unit]:
        """All units of the study, in the order of the rows.

        Raises:
            DaamLensError: whatever is wrong with the options; nothing heavy has begun.
        """

    @abstractmethod
    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        """Measure one unit. Deterministic: a resumed run must give the same rows."""

    @abstractmethod
    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        """The report of all rows."""
