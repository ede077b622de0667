"""Shared by all tests: nothing may be fetched, and where hosts are looked for."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

# Models come from this repository; a test that asks a hub for one has to fail at once, on every machine.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# `pytest -n 2`: each process keeps to its share of the cores, and so do the hosts that it starts.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max((os.cpu_count() or 1) // workers, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test and its fixtures draw the same numbers whichever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test draw from it
    torch.manual_seed(0)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, for what a command writes when it is not told where."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
