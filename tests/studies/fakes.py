"""A study that needs no model's picture: rows are arithmetic on the seed, so that what a run must give can be written out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from daam_core.studies.model_runner import ModelRunner
from daam_core.studies.report import Report, Table, Text
from daam_core.studies.study import Found, Measured, Study, Unit


class Squares(Study):
    """Two rows a unit; counts how often it measured, and can be told to die at a unit."""

    name = "squares"
    outside = frozenset({"count"})

    def __init__(self, dies_at: int | None = None) -> None:
        self.measured: list[str] = []
        self.dies_at = dies_at

    def units(self, options: argparse.Namespace) -> list[Unit]:
        return [Unit(f"unit {n}", {"seed": n}) for n in range(options.count)]

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        seed = unit.content["seed"]
        if seed == self.dies_at:
            raise KeyboardInterrupt
        self.measured.append(unit.key)
        rows: list[Any] = [
            {"kind": "square", "value": seed * seed, "share": seed / 7, "note": None},
            {"kind": "big", "value": None, "share": None, "note": "ü,\"'\n" * (seed % 2)},
        ]
        return Measured(rows, {"dot": np.full((2, 3, 3), seed, np.uint8)} if seed == 0 else {})

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        total = int(found.rows["value"].sum())
        return Report("Squares", [Text(f"sum {total}"), Table("All", pd.DataFrame({"sum": [total]}))], facts={"total": total})


def options(out: Path, **changed: Any) -> argparse.Namespace:
    """Options as the command line gives them."""
    given: dict[str, Any] = {
        "model": "tiny", "out": out, "prompts": None, "seeds": 1, "limit": None, "first_seed": 0, "aggregation": "sum",
        "device": "cpu", "steps": None, "guidance": None, "size": None, "threads": 1, "count": 5,
    }  # fmt: skip
    return argparse.Namespace(**{**given, **changed})
