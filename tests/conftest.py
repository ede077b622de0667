"""Shared by all tests: nothing may be fetched, and where hosts are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Models come from this repository; a test that asks a hub for one has to fail at once, on every machine.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, for what a command writes when it is not told where."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
