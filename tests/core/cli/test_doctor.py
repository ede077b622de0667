"""`daam-lens doctor`: true lines about what is installed, a model's folder and a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daam_core.cli import doctor
from daam_core.cli.parser import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _no_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMFYUI_PATH", "A1111_PATH", "FORGE_PATH", "REFORGE_PATH", "NEO_PATH", "SDNEXT_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_a_host_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORGE_PATH", "/no/such/folder")
    assert main(["doctor"]) == 1
    assert "NOT FORGE_PATH = /no/such/folder, which is no folder" in capsys.readouterr().out


def test_it_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"ok  torch {torch.__version__}" in out and "ok  DAAM Lens" in out and "this folder lies in no host" in out


def test_what_is_missing_comes_with_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "" if package in ("gradio", "numpy") else "1.0")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "NOT numpy is not installed" in out
    assert "    gradio is not installed; the app needs it: pip install" in out and '[app]"' in out
    assert "4 builds of OpenCV lie over each other" in out


@pytest.mark.parametrize(
    ("index", "code", "line"),
    [
        ({"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"]}, 0, "a UNet, which is read"),
        ({"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}, 0, "read as Flux.1"),
        ({"_class_name": "P", "transformer": ["diffusers", "DiTTransformer2DModel"]}, 1, "a class by number, not a text"),
        ({"_class_name": "P", "transformer": ["x", "NobodysModel"]}, 1, "NobodysModel, which is not known"),
        ({"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"]}, 1, "has no UNet and no transformer"),
        ({"_class_name": "P", "decoder": ["stable_cascade", "StableCascadeUNet"]}, 1, "is not read: of its StableCascadeUNet"),
        ({"_class_name": "P", "prior": ["stable_cascade", "StableCascadeUNet"]}, 0, "StableCascadeUNet, a UNet, which is read"),
        ({"_class_name": "P", "unet": ["diffusers", "Kandinsky3UNet"]}, 1, "is not read: of its Kandinsky3UNet"),
        ([1, 2], 1, "cannot be read as the index of a pipeline"),
        ("{", 1, "cannot be read as the index of a pipeline"),
    ],
)
def test_a_models_folder(index: object, code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model_index.json").write_text(index if isinstance(index, str) else json.dumps(index), encoding="utf-8")
    assert main(["doctor", "--model", str(tmp_path)]) == code
    assert line in capsys.readouterr().out


def test_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--record", str(next((ROOT / "tests").rglob("*.safetensors")))]) == 0
    assert "a record of" in capsys.readouterr().out
    (tmp_path / "bad.safetensors").write_bytes(b"no record")
    assert main(["doctor", "--record", str(tmp_path / "bad.safetensors")]) == 1
    assert "NOT " in capsys.readouterr().out


def test_a_folder_in_a_host_is_seen(tmp_path: Path) -> None:
    assert "ComfyUI" in next(iter(doctor._host(tmp_path / "ComfyUI" / "custom_nodes" / "daam-lens")))[1]
    assert "a WebUI" in next(iter(doctor._host(tmp_path / "webui" / "extensions" / "daam-lens")))[1]
