"""`daam-lens tiny`: help a newcomer understands, one sentence for what a user can cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from daam_core.cli import main


@pytest.mark.parametrize("command", ["train", "train-transformer", "evaluate", "export", "draw"])
def test_help_explains(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["tiny", command, "--help"])
    assert stop.value.code == 0
    assert f"daam-lens tiny {command}" in capsys.readouterr().out


def test_draw_writes_a_sheet_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "world.png"
    assert main(["tiny", "draw", str(out), "--count", "9"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert Image.open(out).size == (8 * 134 + 6, 2 * 162 + 6)
    masks = tmp_path / "masks.png"
    assert main(["tiny", "draw", str(masks), "--count", "9", "--masks", "--style", "shaded"]) == 0
    assert masks.read_bytes() != out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["draw", "{tmp}/world.xyz"], "is no name of a picture"),
        (["draw", "{tmp}", "--count", "1"], "is no name of a picture"),
        (["draw", "{tmp}/world.png", "--count", "0"], "from 1 to 400, got 0"),
        (["draw", "{tmp}/world.png", "--count", "1000000000"], "from 1 to 400, got 1000000000"),
        (["draw", "{tmp}/world.png", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["train", "--work", "{tmp}", "--scale", "0"], "--scale must be above 0"),
        (["train", "--work", "{tmp}", "--device", "tpu"], "must be cpu or cuda"),
        (["train-transformer", "--work", "{tmp}", "--scale", "0"], "scale must be above 0"),
        (["train-transformer", "--work", "{tmp}", "--images", "0"], "images must be at least 1, got 0"),
        (["train-transformer", "--work", "{tmp}", "--scenes", "-3"], "scenes must be at least 1, got -3"),
        (["evaluate", "--weights", "{tmp}"], "No model lies in"),
        (["export", "{tmp}/out", "--vocab", "{tmp}/none.json"], "cannot be read"),
    ],
)
def test_mistakes_end_with_two_and_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tiny", *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
