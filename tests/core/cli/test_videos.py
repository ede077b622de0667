"""Videos on the command line: made, looked at, masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daam_core.cli import main
from daam_core.diffusers import loading

from ..diffusers.video_pipelines import wan_with_autoencoder
from ..maps.test_heatmaps import made
from ..maps.videos import moving_house


@pytest.fixture
def record(tmp_path: Path) -> str:
    return str(moving_house().save(tmp_path / "house"))


def test_generate_makes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loading, "load_pipeline", lambda *_: wan_with_autoencoder())
    out = tmp_path / "out"
    told = main([
        "generate", "a red house", "--model", "tiny", "--steps", "1", "--size", "64x96", "--num-frames", "9", "--guidance", "1",
        "--method", "threshold", "--words", "house", "--out", str(out),
    ])  # fmt: skip
    said = capsys.readouterr()
    assert told == 0, said.err
    names = {path.name for path in out.iterdir()}
    suffix = ".mp4" if (out / "video.mp4").exists() else ".webp"
    wanted = {
        "picture.png",
        f"video{suffix}",
        f"overlay_house{suffix}",
        "contact_sheet.png",
        "record.safetensors",
        "report.txt",
    }
    assert wanted <= names and {f"mask_house_f{i:03d}.png" for i in range(3)} <= names
    assert "Traceback" not in said.err


def test_frames_of_a_pipeline_of_pictures_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a red house", "--num-frames", "9", "--steps", "1", "--out", str(tmp_path)]) == 2
    assert "takes no number of frames (it makes pictures)" in capsys.readouterr().err


def test_masks_are_a_picture_a_frame(record: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def masks(*arguments: str) -> list[str]:
        folder = tmp_path / "masks" / "-".join(arguments or ("all",)).replace(",", "_")
        folder.mkdir(parents=True)
        assert main(["mask", record, "--word", "house", "--out", str(folder), *arguments]) == 0
        return sorted(path.name for path in folder.iterdir())

    assert masks() == [f"mask_house_f00{i}.png" for i in range(4)]
    assert masks("--frames", "0,-1") == ["mask_house_f000.png", "mask_house_f003.png"]
    assert masks("--frames", "video", "--method", "threshold") == [f"mask_house_f00{i}.png" for i in range(4)]
    first = np.asarray(Image.open(tmp_path / "masks" / "all" / "mask_house_f000.png"))
    assert first.shape == (96, 128) and first[48, 24] == 255 and first[48, 100] == 0
    assert "(4 frames)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frames", "9"], "There is no frame 9"),
        (["--frames", "a"], "no list of frames"),
        (["--frames", ""], "After --frames stands an empty argument"),
        (["--frames", ","], "leaves no frame"),
    ],
)
def test_frames_that_there_are_not_are_said(
    record: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", record, "--word", "house", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_frames_of_a_picture_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path: Any = made().save(tmp_path / "picture")
    assert main(["mask", str(path), "--word", "house", "--frames", "0"]) == 2
    assert "this record is of one picture" in capsys.readouterr().err


def test_show_tells_of_the_frames(record: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", record, "--out", str(tmp_path / "sheet")]) == 0
    assert "frames   4 latent, 4 in the video" in capsys.readouterr().out
    assert (tmp_path / "sheet" / "contact_sheet.png").exists()
