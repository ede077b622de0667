"""Installing in a host: nothing that is there is installed again, and what is missing is said in a sentence."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
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


def test_comfyui_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, pack: Callable[[str], ModuleType]) -> None:
    """Cloned by hand and never installed: ComfyUI's log shows one sentence that says what to do."""
    door = sys.modules[pack("daam_core").__name__.rpartition(".")[0]]
    hide(monkeypatch, "cv2")
    with pytest.raises(ImportError, match=r"needs OpenCV.*install\.py"):
        asyncio.run(door.comfy_entrypoint())
