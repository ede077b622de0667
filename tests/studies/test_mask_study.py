"""Mask methods compared: combinations are the core's own methods, thresholds come from the other half of the prompts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from daam_core.cli import main
from daam_core.masks.methods import MASK_METHODS, MaskMethod
from daam_core.studies.combinations import CORE, Workbench, combinations, levels_of
from daam_core.studies.ground_truth import ACCURACY
from daam_core.studies.mask_study import CASTORINI, MaskStudy, difference, labels
from daam_core.studies.model_runner import ModelRunner, Sample
from daam_core.studies.report import Report, Table, Text
from daam_core.studies.study import Found


@pytest.fixture(scope="module")
def sample() -> Sample:
    return ModelRunner(how={"num_inference_steps": 4}).picture("a red house and a green tree", 5, keep=("heads",))


@pytest.mark.parametrize(("how", "name"), CORE.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_combinations_are_the_core_s_methods(sample: Sample, how: MaskMethod, name: str) -> None:
    """The table speaks of the masks that users get."""
    size = (128, 128)
    for tau in levels_of(how):
        ours = Workbench.of(sample.maps, "house", size).mask(how, tau)
        core = sample.maps.mask("house", name, tau=0.4 if tau is None else tau)
        assert ours is not None and torch.equal(ours, core), (name, tau)


def test_every_core_method_is_compared_once() -> None:
    assert set(CORE.values()) == set(MASK_METHODS)
    names = [how.name for how in combinations()]
    assert len(names) == len(set(names)) >= 40


def test_report_chooses_on_one_half_and_reports_the_other() -> None:
    """Rows made by hand: on the choosing half level 0.3 is the best of castorini's rule, on the reporting half 0.5."""
    rows = []
    for number in range(12):
        choosing = number % 2 == 0
        about = {"unit": f"u{number}", "word": "house", "split": "one object", "prompt": f"p{number}", "seed": 0}
        about["half"] = "choosing" if choosing else "reporting"
        for tau, iou in ((0.3, 0.7 if choosing else 0.5), (0.5, 0.2 if choosing else 0.9)):
            rows.append({**about, "mask": CASTORINI, "tau": tau, "iou": iou + 0.001 * number})
        for how in CORE:
            best = CORE[how] == "best"
            rows.append({**about, "mask": how.name, "tau": levels_of(how)[0], "iou": (0.95 if best else 0.4) + 0.001 * number})
    rows += [{"split": ACCURACY, "word": word, "iou": 0.97} for word in ("drawn", "decoded")]
    report, exact = (
        MaskStudy().conclude(Found(pd.DataFrame(rows), {}, ()), argparse.Namespace(truth=truth))
        for truth in ("generated", "rendered")
    )
    assert "whose own mean IoU" in _first_text(report)
    assert "exact" in _first_text(exact) and "segmenter" not in _first_text(exact)
    tables = {part.title: part.frame for part in report.parts if isinstance(part, Table)}
    lines = tables["Mean IoU by mask method"].set_index("mask")
    assert lines.loc[CASTORINI, "tau"] == "0.3"
    assert str(lines.loc[CASTORINI, "one object (6)"]).startswith("0.506")
    goal = tables["The default mask against its goals"].iloc[0]
    assert goal["both reached"] == "yes"
    assert str(goal["ahead by"]).startswith("0.450")
    assert report.facts["winner"] == "late + walk + figure + grabcut"
    assert labels()["late + walk + figure + grabcut"] == "best: late + walk + figure + grabcut"


def _first_text(report: Report) -> str:
    return next(part.text for part in report.parts if isinstance(part, Text))


def test_differences_are_paired() -> None:
    ours = pd.DataFrame({"unit": ["a", "b"], "word": ["x", "x"], "prompt": ["a", "b"], "iou": [0.9, 0.5]})
    theirs = pd.DataFrame({"unit": ["b", "a"], "word": ["x", "x"], "prompt": ["b", "a"], "iou": [0.4, 0.8]})
    found = difference(ours, theirs)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_small_run_and_too_small_a_run(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red house\na yellow sun\n", encoding="utf-8")
    quick = ["--prompts", str(tmp_path / "prompts.txt"), "--steps", "4", "--judge-scenes", "1", "--device", "cpu"]
    assert main(["study", "masks", "--out", str(tmp_path), *quick, "--limit", "1"]) == 0
    assert "Two prompts of a kind are the least" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert main(["study", "masks", "--out", str(tmp_path), *quick]) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows["half"].dropna()) == {"choosing", "reporting"}
    assert np.isfinite(rows["iou"]).all()
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["winner"] in set(rows["mask"])
