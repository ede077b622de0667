"""The report on the command line, and its thresholds on one's own pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daam_core.cli import main, reports
from daam_core.cli.reports import read_annotations, read_thresholds
from daam_core.errors import BadArgument
from daam_core.maps.prompt_report import ReportThresholds

from ..maps.test_statistics import drawn, left, right


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Four records: the tree is missing from the last two."""
    for k in range(4):
        drawn(house=left(), tree=right() if k < 2 else 0.1 * left()).save(tmp_path / f"{k}.safetensors")
    lines = ["record,word,present"]
    for k in (0, 2, 1, 3):  # every other one is counted: each half has one of each kind
        lines += [f"{k}.safetensors,house,yes", f"{k}.safetensors,tree,{'yes' if k < 2 else 'no'}"]
    (tmp_path / "seen.csv").write_text("\n".join([*lines[:5], *lines[7:], *lines[5:7]]) + "\n")
    return tmp_path


def test_the_report_of_a_record(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(records / "2.safetensors")]) == 0
    assert "“tree” lost nearly every place to “house”; it may be missing from the picture." in capsys.readouterr().out
    assert main(["report", str(records / "0.safetensors"), "--words", "house,tree"]) == 0
    assert "missing" not in capsys.readouterr().out


def test_thresholds_are_fitted_and_taken(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = records / "limits.json"
    assert main(["fit-report", str(records / "seen.csv"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "4 pictures: chosen on one half, counted on the other." in printed
    assert "objects: below 0.5" in printed and "names 100.0% of 1 that are missing" in printed
    limits = read_thresholds(out)
    assert limits.won == pytest.approx(0.5) and limits.margin == ReportThresholds().margin
    assert main(["report", str(records / "2.safetensors"), "--thresholds", str(out)]) == 0
    assert "may be missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n", "needs a first line with the columns record, word, present"),
        ("record,word,present\nx,house,perhaps\n", "line 2: a record, a word, and yes or no are needed"),
        ("record,word,present\nx,house\n", "line 2"),
    ],
)
def test_annotations_are_checked(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadArgument, match=sentence):
        read_annotations(path)
    path.write_bytes(b"\xff\xfe\x00record")
    with pytest.raises(BadArgument, match="no CSV file"):
        read_annotations(path)
    with pytest.raises(BadArgument, match="cannot be read"):
        read_annotations(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"margin": 2, "won": 0.1, "led": 0.1}',
        '{"margin": true, "won": 0, "led": 0}',
        '{"margin": 0.2, "won": 0, "apart": 0}',
    ],
)
def test_thresholds_are_checked(tmp_path: Path, text: str) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(BadArgument, match="must hold led, margin, won"):
        read_thresholds(path)
    for broken in ("{", "[" * 60_000, '{"a":' * 12_000, "1" * 5000):
        path.write_text(broken)
        with pytest.raises(BadArgument, match="no JSON"):
            read_thresholds(path)
    path.write_bytes(b" " * 70_000)
    with pytest.raises(BadArgument, match="no file of thresholds"):
        read_thresholds(path)
    path.write_text(json.dumps(vars(ReportThresholds())))
    assert read_thresholds(path) == ReportThresholds()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("0.safetensors,house,yes\n0.safetensors,tree,yes\n0.safetensors,house,no\n", "line 4: it says yes and no of 'house'"),
        (
            "0.safetensors,house,yes\n0.safetensors,House,yes\n",
            "record 0.safetensors: 'house' and 'House' are names of one object",
        ),
        ("0.safetensors,red house,yes\n0.safetensors,house,yes\n", "'red house' and 'house' are names of one object"),
        ("0.safetensors,house,yes\n", "record 0.safetensors: The report compares objects"),
        ("0.safetensors,house,yes\n0.safetensors,dragon,no\n", "record 0.safetensors: 'dragon' is not in the prompt"),
    ],
)
def test_what_is_wrong_with_an_annotation_names_its_record(
    records: Path, capsys: pytest.CaptureFixture[str], lines: str, sentence: str
) -> None:
    (records / "odd.csv").write_text("record,word,present\n" + lines)
    assert main(["fit-report", str(records / "odd.csv"), "--out", str(records / "limits.json")]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_before_records_are_read(
    records: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daam_core.maps.report_fit.measure", lambda *_: pytest.fail("a record was measured"))
    out = records / "seen.csv" / "limits.json"
    assert main(["fit-report", str(records / "seen.csv"), "--out", str(out)]) == 2
    assert "Cannot write into" in capsys.readouterr().err


def test_annotations_without_an_end_are_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the device's zeros would fill the memory."""
    monkeypatch.setattr(reports, "LARGEST_ANNOTATIONS", 1000)
    path = tmp_path / "endless.csv"
    path.write_bytes(b"\0" * 1001)
    with pytest.raises(BadArgument, match="more than 1000 bytes: that is no file of annotations"):
        read_annotations(path)
