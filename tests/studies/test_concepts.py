"""The study of concepts: its scenes, its figures against written-out ones, and a run on the model inside."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from daam_core.cli import main
from daam_core.errors import BadArgument
from daam_core.studies.concepts import ConceptsStudy, best_level, separation

from .staged import options

STUDY = ConceptsStudy()


def test_each_prompt_names_one_of_two_different_things() -> None:
    units = STUDY.units(options(STUDY, "--limit", "4"))
    assert len(units) == 8 and len({unit.key for unit in units}) == 8
    assert [unit.content["named"] for unit in units[:4]] == [0, 0, 1, 1]
    assert all(len(unit.content["prompt"].split()) == 3 for unit in units)
    with pytest.raises(BadArgument, match="captions of their own"):
        STUDY.units(options(STUDY, "--prompts", "file"))


def test_figures() -> None:
    assert separation([3, 1], [0, 1, 2]) == pytest.approx((3 + 1.5) / 6)
    assert separation([2], [1]) == 1 and separation([1], [1]) == 0.5
    assert separation([], [1]) != separation([], [1])
    assert best_level([3, 4, 5], [0, 1, 4]) == 3


def test_a_run_measures_masks_and_both_kinds_of_presence(tmp_path: Path) -> None:
    arguments = ["study", "concepts", "--out", str(tmp_path), "--limit", "2", "--with-denoising"]
    assert main(arguments) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(rows) == 4 * (2 + 2 * 11)
    presence = rows[rows["kind"] == "presence"]
    assert (presence.groupby(["unit", "by"])["present"].sum() == 1).all()
    assert rows.loc[rows["kind"] != "presence", "iou"].between(0, 1).all()
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "as a concept" in report and "denoising error" in report
