"""The segmentation study: rows are what they say, tables follow from rows, one sentence for what is wrong."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from daam_core import load_tiny, trace
from daam_core.cli.parser import USER_ERROR, main
from daam_core.packages import install_line
from daam_core.studies import segmentation_report
from daam_core.studies.ground_truth import segmented
from daam_core.studies.segmentation_paper import accuracy_beside_the_paper, beside_the_paper
from daam_core.studies.segmentation_report import best_tau, closed_set
from daam_core.studies.study import Found
from daam_core.tiny.scenes import scene_at

QUICK = ["--limit", "1", "--steps", "4", "--judge-scenes", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run for all tests that only read."""
    out = tmp_path_factory.mktemp("segmentation")
    assert main(["study", "segmentation", "--out", str(out), *QUICK]) == 0
    return out


def test_rows_are_the_overlap_of_the_paper_s_masks_written_out(study: Path) -> None:
    rows = pd.read_csv(study / "rows.csv")
    one = rows[rows["split"] == "one object"].iloc[0]
    pipe = load_tiny()
    with trace(pipe, keep="heads") as recording:
        picture = pipe(one["prompt"], num_inference_steps=4, generator=torch.Generator().manual_seed(int(one["seed"]))).images[
            0
        ]
    truth = segmented(np.asarray(picture))[one["word"]].numpy()
    heat = recording.heat_maps().heat_map(one["word"], (128, 128)).numpy()
    other = recording.heat_maps(aggregation="castorini").heat_map(one["word"], (128, 128)).numpy()
    other = (other - other.min()) / (other.max() - other.min())
    of_word = rows[(rows["unit"] == one["unit"]) & (rows["word"] == one["word"])]
    for tau in (0.1, 0.4, 0.9):
        for mask, name in ((heat >= np.float32(tau) * heat.max(), "paper"), (other > np.float32(tau), "castorini")):
            (row,) = of_word[(of_word["mask"] == name) & (of_word["tau"] == tau)].to_dict("records")
            assert row["iou"] == pytest.approx(jaccard_score(truth.ravel(), mask.ravel()), abs=2e-3)
    (whole,) = of_word[of_word["mask"] == "whole image"].to_dict("records")
    assert whole["iou"] == whole["truth_area"] == pytest.approx(truth.mean(), abs=1e-6)


def test_every_mask_of_the_issue_is_there(study: Path) -> None:
    rows = pd.read_csv(study / "rows.csv")
    names = {"paper", "castorini", "default", "whole image", "random", "centre box", "segmenter"}
    assert names <= set(rows["mask"])
    assert sorted(rows[rows["mask"] == "paper"]["tau"].unique()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert set(rows["split"]) == {"one object", "two objects", "held-out one", "held-out two", "segmenter accuracy"}


def test_the_report_says_what_the_rows_say(study: Path) -> None:
    rows = pd.read_csv(study / "rows.csv")
    text = (study / "report.md").read_text(encoding="utf-8")
    unreal = rows[(rows["mask"] == "default") & rows["split"].isin(["held-out one", "held-out two"])]["iou"]
    (line,) = [one for one in text.split("### Beside")[0].splitlines() if one.startswith("| default mask")]
    assert line.split("|")[-2].strip() == f"{unreal.mean():.3f}"
    drawn = rows[(rows["split"] == "segmenter accuracy") & (rows["word"] == "drawn")]["iou"].iloc[0]
    assert f"{drawn:.3f} on unseen drawn scenes" in text
    assert Image.open(study / "thresholds.png").width > 600
    run = json.loads((study / "run.json").read_text(encoding="utf-8"))
    assert run["masks_scored"] == len(rows[rows["mask"] == "default"])


def test_started_again_it_measures_nothing_and_ends_the_same(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (study / name).read_bytes() for name in ("rows.csv", "report.md", "report.html", "thresholds.png")}
    monkeypatch.setattr("daam_core.studies.segmentation.SegmentationStudy.measure", None)
    assert main(["study", "segmentation", "--out", str(study), *QUICK]) == 0
    assert {name: (study / name).read_bytes() for name in before} == before


def test_a_word_that_the_prompt_does_not_have_is_counted_apart(tmp_path: Path) -> None:
    scene = scene_at(3, 1)
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(scene.image).save(folder / "one.png")
    (folder / "one.txt").write_text(scene.caption, encoding="utf-8")
    mask = Image.fromarray((scene.objects[0].mask * 255).astype(np.uint8))
    for word in (scene.objects[0].noun, "dragon"):
        mask.save(folder / f"one.{word}.png")
    out = tmp_path / "out"
    assert main(["study", "segmentation", "--truth", str(folder), "--out", str(out), "--aggregation", "castorini"]) == 0
    rows = pd.read_csv(out / "rows.csv")
    absent = rows[rows["word"] == "dragon"]
    assert list(absent["mask"]) == ["absent word"]
    assert absent["iou"].isna().all()
    assert "1 masks are of words that their prompt does not have" in (out / "report.md").read_text(encoding="utf-8")


def test_closed_set_and_best_threshold() -> None:
    rows = pd.DataFrame(
        [
            {"unit": unit, "word": word, "mask": "paper", "tau": tau, "iou": iou}
            for unit, word in (("u1", "b"), ("u2", "b"), ("u1", "c"), ("u2", "a"), ("u3", "d"), ("u4", "d"))
            for tau, iou in ((0.1, 0.3), (0.2, 0.6), (0.3, 0.6))
        ]
    )
    assert closed_set(rows, 3) == ["b", "d", "a"]
    assert closed_set(rows, 99) == ["b", "d", "a", "c"]
    assert best_tau(rows, "paper") == 0.2


def test_figures_beside_the_paper_are_the_rows_of_the_same_threshold() -> None:
    rows = pd.DataFrame(
        [
            {"mask": mask, "tau": tau, "word": word, "group": group, "iou": iou, "pixel_accuracy": 0.9, "dice": iou / 2}
            for mask, tau, word, group, iou in (
                ("paper", 0.4, "house", "ordinary", 0.2),
                ("paper", 0.4, "tree", "ordinary", 0.6),
                ("paper", 0.5, "house", "ordinary", 1.0),
                ("castorini", 0.4, "tree", "unreal", 0.7),
            )
        ]
    )
    lines = beside_the_paper(rows, ["house"], judged=True).frame.set_index("mask")
    assert lines.loc["DAAM-0.4, Eq. 7"].to_list()[:2] == pytest.approx([20, 40])
    assert lines.loc["DAAM-0.4, Eq. 7"].to_list()[4:] == [64.8, 60.7, 60.8, 58.3]  # the paper's Table 1
    assert lines.loc["DAAM-0.4, castorini's rule", "unreal, open, here"] == pytest.approx(70)
    assert np.isnan(lines.loc["DAAM-0.4, castorini's rule", "unreal, closed, here"])
    accuracy = accuracy_beside_the_paper(rows).frame.set_index("mask")
    assert accuracy.loc["DAAM-0.4, Eq. 7"].to_list() == pytest.approx([90, 20, 90, 68])


def test_nothing_to_score_is_a_report_that_says_so() -> None:
    rows = pd.DataFrame([{"unit": "u", "split": "x", "word": "house", "mask": "unseen", "tau": None, "iou": None}])
    found = Found(rows, {}, ())
    options = argparse.Namespace(closed=3, model="tiny", truth="generated", aggregation="sum")
    report = segmentation_report.conclude(found, options)
    assert any("Not one mask" in getattr(part, "text", "") for part in report.parts)


# -- what a user can get wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segmentation"], "--out"),
        (["nonsense", "--out", "{tmp}/out"], "nonsense"),
        (["segmentation", "--out", "{tmp}/out", "--model", "{tmp}"], "no model_index.json"),
        (["segmentation", "--out", "{tmp}/out", "--model", "nobody/nothing"], "nobody/nothing"),
        (["segmentation", "--out", "{tmp}/out", "--prompts", "{tmp}/gaps.txt"], "empty lines (2)"),
        (["segmentation", "--out", "{tmp}/out", "--prompts", "{tmp}/latin.txt"], "not UTF-8"),
        (["segmentation", "--out", "{tmp}/out", "--prompts", "{tmp}/none.txt"], "cannot be read"),
        (["segmentation", "--out", "{tmp}/out", "--words", "dragon"], "None of the"),
        (["segmentation", "--out", "{tmp}/gaps.txt"], "Cannot write into"),
        (["segmentation", "--out", "{tmp}/out", "--truth", "{tmp}/nowhere"], "no folder"),
        (["segmentation", "--out", "{tmp}/out", "--limit", "0"], "--limit"),
        (["segmentation", "--out", "{tmp}/out", "--aggregation", "other"], "--aggregation"),
        (["masks", "--out", "{tmp}/out", "--words", "dragon"], "None of the"),
        (["masks", "--out", "{tmp}/out", "--prompts", "{tmp}/dragons.txt"], "None of the 1 prompts names a thing"),
        (["ablation", "--out", "{tmp}/out", "--prompts", "{tmp}/gaps.txt"], "empty lines (2)"),
    ],
)
def test_one_sentence_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "gaps.txt").write_text("a house\n\na fish\n", encoding="utf-8")
    (tmp_path / "dragons.txt").write_text("a dragon\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("ein Fluß\n".encode("latin-1"))
    assert main(["study", *(one.format(tmp=tmp_path) for one in arguments)]) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_full_disk_is_one_sentence_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/full in place of the shard: the first measured unit cannot be kept."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "prompts.txt").write_text("a red house\n", encoding="utf-8")
    arguments = ["--out", str(tmp_path), "--prompts", str(tmp_path / "prompts.txt"), "--steps", "1", "--judge-scenes", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daam_core.studies.segmentation.SegmentationStudy.measure", _stopped)
        assert main(["study", "segmentation", *arguments]) == 130
    (folder,) = (tmp_path / ".measured").iterdir()
    (folder / "part-0.jsonl").symlink_to("/dev/full")
    capsys.readouterr()
    assert main(["study", "segmentation", *arguments]) == USER_ERROR
    assert "no space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "rows.csv").exists()


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("package", ["pandas", "matplotlib", "statsmodels"])
def test_without_the_extra_one_sentence_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Also for what is imported only when the report is drawn, hours later."""
    monkeypatch.setattr("daam_core.studies.registry.find_spec", lambda name: None if name == package else find_spec(name))
    assert main(["study", "segmentation", "--out", str(tmp_path)]) == USER_ERROR
    assert f"Studies need {package}, which is missing here or broken: {install_line('study')}" in capsys.readouterr().err


def test_help_explains_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--help"], "segmentation"),
        (["masks", "--help"], "--truth"),
        (["ablation", "--help"], "--seeds"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["study", *arguments])
        assert stop.value.code == 0
        assert said in capsys.readouterr().out
