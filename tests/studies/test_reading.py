"""The study of noise levels: what a unit measures, what is chosen and reported, from rows that are written out here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from daam_core.studies import reading
from daam_core.studies.model_runner import ModelRunner
from daam_core.studies.reading import ReadingStudy
from daam_core.studies.report import Table
from daam_core.studies.study import Found, Unit

from .fakes import options


def test_units_are_scenes_of_its_own_world_and_of_others(tmp_path: Path) -> None:
    units = ReadingStudy().units(options(tmp_path, scenes=3))
    assert len(units) == 3 * (len(reading.OWN) + len(reading.OTHERS)) == len({unit.key for unit in units})
    assert len(ReadingStudy().units(options(tmp_path, scenes=3, limit=1))) == len(units) // 3


def test_a_unit_is_read_at_every_candidate_and_for_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SINGLE", ((800,),))
    monkeypatch.setattr(reading, "SETS", ((200, 100),))
    monkeypatch.setattr(reading, "SAMPLES", 2)
    monkeypatch.setattr(reading, "NOUNS", ("house", "tree"))
    unit = Unit("own world, flat 0000", {"kind": "own world, flat", "number": 0, "seed": 0})
    rows = pd.DataFrame(ReadingStudy().measure(unit, ModelRunner(device="cpu"), options(tmp_path)).rows)
    assert set(rows["levels"]) == {"800", "200, 100", "300, 200, 100, 50 (2 noises)", "300, 200, 100, 50"}
    assert list(rows[rows["levels"] == "300, 200, 100, 50"]["asked"].unique()) == ["its nouns", "all nouns"]
    by_level = rows[rows["asked"] == "its true caption"].groupby("levels")["iou"].mean()
    assert by_level["200, 100"] > 0.8 and rows["late_iou"].between(0, 1).all()


def test_the_best_of_the_choosing_half_is_named_and_the_others_are_reported(tmp_path: Path) -> None:
    """Level 500 is best where it is chosen, level 300 where it is reported."""
    best = {("500", "choosing"): 0.9, ("300, 200, 100, 50", "reporting"): 0.8}
    rows = [
        {
            "unit": f"{kind} {half}", "split": kind, "half": half, "asked": asked, "levels": levels, "word": "house",
            "iou": best.get((levels, half), 0.4), "late_iou": 0.25,
        }
        for kind in (*reading.OWN, *reading.OTHERS) for half in ("choosing", "reporting")
        for levels in ("500", "300, 200, 100, 50") for asked in reading.ASKED
    ]  # fmt: skip
    report = ReadingStudy().conclude(Found(pd.DataFrame(rows), {}, ()), options(tmp_path))
    assert report.facts == {"best": "500"}
    levels, goals, asked = (part.frame for part in report.parts if isinstance(part, Table))
    line = levels[levels["levels"] == "500"].iloc[0]
    assert line["chosen by"] == 0.9 and line["own world, flat"] == 0.4 and line["late heat, own world"] == 0.25
    assert list(goals[goals["goal"] != "-"]["reached"]) == ["no", "no", "yes"]  # 0.8 against 0.90, 0.90 and 0.75
    assert list(asked["prompt"]) == list(reading.ASKED) and asked["other shapes, late heat"].eq(0.25).all()
    assert np.isnan(levels[levels["levels"] == "20"]["chosen by"]).all()


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    report = ReadingStudy().conclude(Found(pd.DataFrame({"unit": []}), {}, ()), options(tmp_path))
    assert "Not one mask" in str(report.parts[0])
