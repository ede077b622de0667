"""A study that is killed goes on where it was and ends with the same numbers; nothing half-written is a result."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from daam_core.errors import CannotWrite
from daam_core.studies.model_runner import ModelRunner
from daam_core.studies.processes import Processes
from daam_core.studies.runner import as_frame, run_study
from daam_core.studies.shards import Cost, Shards
from daam_core.studies.study import Measured, Unit

from .fakes import Squares, options


@pytest.fixture(autouse=True)
def no_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most runs here need no model, whose digest would take a second each."""
    if "with_model" not in request.node.name:
        monkeypatch.setattr(ModelRunner, "weights_digest", "0" * 64)


RESULTS = {"rows.csv", "report.md", "report.html", "run.json"}


def shard(out: Path) -> Path:
    (found,) = (out / ".measured").glob("squares-*/part-0.jsonl")
    return found


def test_writes_every_promised_file(tmp_path: Path) -> None:
    paths = run_study(Squares(), options(tmp_path))
    assert {path.name for path in paths} == RESULTS
    assert {path.name for path in tmp_path.iterdir()} == RESULTS | {".measured"}
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (run["units"], run["rows"], run["seeds"], run["total"]) == (5, 10, [0, 1, 2, 3, 4], 30)
    assert run["versions"]["torch"]
    assert run["arguments"]["count"] == 5


def test_other_weights_are_never_mixed_with_model(tmp_path: Path) -> None:
    """A model that was trained on is another model, whatever its folder is called."""
    run_study(Squares(), options(tmp_path, count=1))
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    runner = ModelRunner()
    with torch.no_grad():
        runner.pipe.unet.conv_in.bias[0] += 1
    assert len(run["weights_sha256"]) == 64
    assert run["weights_sha256"] == ModelRunner().weights_digest != runner.weights_digest


def test_rows_are_what_was_measured(tmp_path: Path) -> None:
    """Whole numbers stay whole beside missing ones, text survives quotes and line breaks."""
    run_study(Squares(), options(tmp_path, count=2))
    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False)
    assert list(rows["value"]) == ["0", "", "1", ""]
    assert float(rows["share"][2]) == 1 / 7
    assert rows["note"][3] == "ü,\"'\n"


def test_columns_that_only_some_rows_have() -> None:
    frame = as_frame([{"a": 1, "b": 0.5}, {"c": "x"}, {"a": 3, "d": True, "b": None}])
    assert list(frame.columns) == ["unit", "a", "b", "c", "d"]
    assert str(frame["a"].dtype) == "Int64"
    assert frame["b"].dtype == float
    assert frame["a"].to_list() == [1, pd.NA, 3]
    assert frame["c"].isna().to_list() == [True, False, True]
    assert frame["d"].to_list()[2] is True
    assert list(as_frame([]).columns) == ["unit"]


@pytest.mark.parametrize("dies_at", [0, 3, 4])
def test_goes_on_after_a_kill_and_ends_with_the_same_bytes(tmp_path: Path, dies_at: int) -> None:
    run_study(Squares(), options(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_study(Squares(dies_at), options(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "rows.csv").exists()
    again = Squares()
    run_study(again, options(tmp_path / "killed"))
    assert again.measured == [f"unit {n}" for n in range(dies_at, 5)]
    for name in ("rows.csv", "report.md", "report.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_line_cut_by_a_kill_is_measured_again(tmp_path: Path) -> None:
    run_study(Squares(), options(tmp_path))
    before = (tmp_path / "rows.csv").read_bytes()
    content = shard(tmp_path).read_bytes()
    shard(tmp_path).write_bytes(content[:-20])
    again = Squares()
    run_study(again, options(tmp_path))
    assert again.measured == ["unit 4"]
    assert shard(tmp_path).read_bytes().count(b"\n") == 5
    assert (tmp_path / "rows.csv").read_bytes() == before


def test_more_units_measure_only_what_is_new(tmp_path: Path) -> None:
    run_study(Squares(), options(tmp_path, count=3))
    more = Squares()
    run_study(more, options(tmp_path, count=6))
    assert more.measured == ["unit 3", "unit 4", "unit 5"]


def test_other_settings_and_other_content_are_never_mixed(tmp_path: Path) -> None:
    run_study(Squares(), options(tmp_path, count=2))
    other = Squares()
    run_study(other, options(tmp_path, count=2, guidance=3.0))
    assert other.measured == ["unit 0", "unit 1"]
    kept = Shards(tmp_path, "squares", {"a": 1})
    kept.open()
    kept.append(0, Unit("key", {"prompt": "a"}), Measured([{"x": 1}]), Cost(0.5, 0.4))
    assert kept.read([Unit("key", {"prompt": "a"})])["key"].rows == [{"x": 1}]
    assert kept.read([Unit("key", {"prompt": "a"})])["key"].cost == Cost(0.5, 0.4)
    assert kept.read([Unit("key", {"prompt": "b"})]) == {}


def test_a_missing_picture_is_measured_again(tmp_path: Path) -> None:
    run_study(Squares(), options(tmp_path))
    (picture,) = shard(tmp_path).parent.glob("*.png")
    picture.unlink()
    again = Squares()
    run_study(again, options(tmp_path))
    assert again.measured == ["unit 0"]


def test_foreign_lines_in_a_shard_are_passed_over(tmp_path: Path) -> None:
    run_study(Squares(), options(tmp_path))
    with shard(tmp_path).open("ab") as file:
        file.write(b"[1]\n{}\n\xff\n")
    again = Squares()
    run_study(again, options(tmp_path))
    assert again.measured == []


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_disjoint_and_whole(count: int) -> None:
    work = list(range(5))
    shares = [Processes(index, count).share(work) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == work


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    with pytest.raises(KeyboardInterrupt):
        run_study(Squares(0), options(tmp_path))  # makes the folder
    (folder,) = (tmp_path / ".measured").iterdir()
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (folder / "part-0.jsonl").symlink_to("/dev/full")
    with pytest.raises(CannotWrite, match="no space left on device"):
        run_study(Squares(), options(tmp_path))
    assert not (tmp_path / "run.json").exists()


def test_a_disk_that_fills_up_while_results_are_written_leaves_no_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json is the sign of a finished result: it goes first and comes back last."""
    run_study(Squares(), options(tmp_path))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CannotWrite, match="no space left"):
        run_study(Squares(), options(tmp_path))
    assert not (tmp_path / "run.json").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_units_of_the_same_key_are_a_mistake_of_the_study(tmp_path: Path) -> None:
    class Twice(Squares):
        def units(self, options: object) -> list[Unit]:
            return [Unit("a", {}), Unit("a", {})]

    with pytest.raises(ValueError, match="two units"):
        run_study(Twice(), options(tmp_path))
