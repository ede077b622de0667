"""Relations on the command line: recorded, drawn, read from a record, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from daam_core import HeatMaps
from daam_core.cli import main
from daam_core.diffusers import loading
from daam_core.maps.relations import LeaningWord, leanings

from ..diffusers import transformer_pipelines as made
from ..maps.test_relations import RECORD


def whole() -> Any:
    """Stable Diffusion 3 with an autoencoder of eight pixels a position."""
    pipe = made.stable_diffusion_3()
    pipe.vae = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4, shift_factor=0.0,
    ).eval()  # fmt: skip
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `generate --relations` wrote of a prompt of five words."""
    out = tmp_path_factory.mktemp("relations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_pipeline", lambda *_: whole())
        assert main([
            "generate", "a red house and two cats", "--steps", "2", "--size", "64x96", "--method", "threshold",
            "--relations", "text-to-image,text->text", "--out", str(out),
        ]) == 0  # fmt: skip
    return out


WORDS = ["red", "house", "two", "cats"]


def test_files_stand_beside_the_maps(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"word_matrix.png", *(f"looks_{word}.png" for word in WORDS)} <= names
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {"word_matrix.png", "looks_house.png"} <= set(report["files"])
    maps = HeatMaps.load(folder / "record.safetensors")
    told = report["relations"]
    assert told["words"] == WORDS
    torch.testing.assert_close(torch.tensor(told["text_to_text"]), maps.word_matrix(WORDS), rtol=0, atol=1e-6)
    values = maps.word_matrix(WORDS)
    for i, one in enumerate(told["leaning"]):
        best = max((j for j in range(4) if j != i), key=lambda j: float(values[i, j]))
        assert one["word"] == WORDS[i] and one["most"] == WORDS[best]
        assert one["probability"] == pytest.approx(float(values[i, best])) and one["itself"] == pytest.approx(
            float(values[i, i])
        )


def test_where_a_word_looks_is_drawn_from_its_own_map(folder: Path) -> None:
    """The picture of where a word looks is not that of which positions look at it."""
    looks, overlay = (np.asarray(Image.open(folder / f"{kind}_house.png")) for kind in ("looks", "overlay"))
    assert looks.shape == overlay.shape and not np.array_equal(looks, overlay)


def test_a_record_gives_the_same_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relations", str(folder / "record.safetensors"), "--out", str(tmp_path), "--words", "house,cats"]) == 0
    said = capsys.readouterr().out
    assert "leans most on" in said and "per cent: of all that the word attends to" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "word_matrix.png", "looks_house.png", "looks_cats.png", "relations.json"
    }  # fmt: skip
    again, before = (np.asarray(Image.open(path / "looks_cats.png")) for path in (tmp_path, folder))
    assert np.array_equal(again, before)
    assert json.loads((tmp_path / "relations.json").read_text(encoding="utf-8"))["words"] == ["house", "cats"]


def test_what_an_earlier_prompt_left_is_removed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("report.json", "word_matrix.png", "looks_house.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(loading, "load_pipeline", lambda *_: whole())
    arguments = ["generate", "two cats", "--steps", "1", "--size", "64", "--save", "report", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.txt"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "a house", "--relations", "text-"], "'text-' is none of image-to-text, text-to-image"),
        (["generate", "a house", "--relations", "text-"], "a shell takes > for a file, write -to-"),
        (["generate", "a house", "--relations", "text->words"], "'text->words' is none of"),
        (["generate", "a house", "--steps", "1", "--relations", "text-to-text"], "a UNet attends to its text"),
        (["relations", str(RECORD)], "This record holds no relations. Make it with `daam-lens generate --relations"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("daam-lens:")]
    assert len(lines) == 1 and says in lines[0]


def test_a_word_alone_leans_on_nothing() -> None:
    assert leanings(["cat"], torch.tensor([[0.25]])) == [LeaningWord("cat", None, 0.0, 0.25, 0.25)]
