"""One process per ComfyUI version for all tests of the session; skipped with the reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .hosts import PLACES, Inside, Server, find


@pytest.fixture(scope="session", params=list(PLACES))
def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    host = find(request.param)
    if isinstance(host, str):
        pytest.skip(host)
    process = Inside(host, tmp_path_factory.mktemp("inside") / "log.txt")
    yield process
    process.close()


@pytest.fixture(scope="session", params=list(PLACES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    host = find(request.param)
    if isinstance(host, str):
        pytest.skip(host)
    base = tmp_path_factory.mktemp("base")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "reduced_models").symlink_to(Path(__file__).parent / "reduced_models")
    running = Server(host, base)
    yield running
    running.close()
