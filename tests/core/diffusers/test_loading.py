"""Folders of pipelines in which something is missing or spoiled: one sentence that names it, before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daam_core.diffusers import loading
from daam_core.diffusers.loading import load_pipeline
from daam_core.errors import UnsupportedModel
from daam_core.tiny.load import WEIGHTS
from daam_core.tiny.package_weights import PIPELINE

WHOLE = WEIGHTS / PIPELINE
Spoil = Callable[[Path], Any]


def index(**changed: Any) -> Spoil:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changed}), encoding="utf-8")

    return change


def text(content: str) -> Spoil:
    return lambda folder: (folder / "model_index.json").write_text(content, encoding="utf-8")


def emptied(folder: Path) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()


CASES: dict[str, tuple[Spoil, str]] = {
    "nothing in the index": (text(""), "cannot be read as the index"),
    "a list": (text("[]"), "cannot be read as the index"),
    "a deep index": (text("[" * 100_000), "cannot be read as the index"),
    "an index without end": (text(" " * 2_000_000), "cannot be read as the index"),
    "a pipeline of the future": (index(_class_name="DreamPipeline9"), "is a DreamPipeline9, and diffusers"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no 'tokenizer'"),
    "an empty tokenizer": (emptied, "has no 'tokenizer'"),
    "no unet": (lambda folder: shutil.rmtree(folder / "unet"), "has no 'unet'"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), "has no 'scheduler'"),
    "a part elsewhere": (index(**{"../unet": ["diffusers", "UNet2DConditionModel"]}), "has no '../unet'"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_missing_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_loaded", lambda *_: pytest.fail("the model was loaded"))
    folder = tmp_path / "model"
    shutil.copytree(WHOLE, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert any((folder / part).iterdir()), "a folder of the model inside"
    spoil, said = CASES[name]
    spoil(folder)
    with pytest.raises(UnsupportedModel) as refused:
        load_pipeline(str(folder), "cpu")
    assert said in str(refused.value) and len(str(refused.value)) < 400


def test_a_whole_folder_is_loaded() -> None:
    assert type(load_pipeline(str(WHOLE), "cpu")).__name__ == "StableDiffusionPipeline"
