"""Installing in a host: nothing that is there is installed again, and what is missing is said in a sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("daam_lens_install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a module look as if it were not installed."""
    honest = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *rest: None if asked == name else honest(asked, *rest))


def test_nothing_is_installed_where_nothing_is_missing() -> None:
    assert script().missing() == []
    done = subprocess.run([sys.executable, str(ROOT / "install.py")], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_opencv_is_installed_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cv2")
    assert script().missing() == ["opencv-python-headless>=4.8"]


def test_where_no_webui_runs_it_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI's registry allows no pip at run time: the sentence says what to type."""
    monkeypatch.setitem(sys.modules, "launch", None)
    told = script().install(["opencv-python-headless>=4.8"])
    assert sys.executable in told and '-m pip install "opencv-python-headless>=4.8"' in told
    assert "import subprocess" not in (ROOT / "install.py").read_text(encoding="utf-8")


WITHOUT_OPENCV = """
import sys
sys.modules["cv2"] = None
import torch
import daam_core.explorer.page_data, daam_core.maps.heatmaps, daam_core.masks.methods, daam_core.render
from daam_core.errors import MissingPackage
from daam_core.masks.morphology import Cleanup
mask = torch.zeros(8, 8, dtype=torch.bool)
mask[2:6, 2:6] = True
assert Cleanup().apply(mask).sum() == 16  # what needs no OpenCV works
try:
    Cleanup(grow=1).apply(mask)
except MissingPackage as error:
    print(error)
"""


def test_what_needs_opencv_asks_for_it() -> None:
    """The pack loads where no build of OpenCV is installed; only what uses it says so."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_OPENCV], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("This needs OpenCV") and "pip install opencv-python-headless" in done.stdout
