"""One browser for the explorer's tests, and a page that is opened anew for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daam_core import HeatMaps
from daam_core.explorer.standalone import write_explorer

from .chromium import Chromium, find
from .samples import heat_maps


@pytest.fixture(scope="session")
def maps() -> HeatMaps:
    return heat_maps(["a", "red", "house", "and", "a", "green", "tree"], (128, 192), ((16, 24), (8, 12)), detail=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    path = find()
    if path is None:
        pytest.skip("no Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome")
    with Chromium(path) as one:
        yield one


# `maps` is the test file's own where it has one.
@pytest.fixture
def page(browser: Chromium, maps: HeatMaps, tmp_path: Path) -> Iterator[Chromium]:
    browser.events.clear()
    browser.resize(1280, 960)
    browser.open(write_explorer(maps, tmp_path / "explorer.html"))
    yield browser
    assert browser.errors() == []
