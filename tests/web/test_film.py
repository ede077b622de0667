"""A video on the explorer's page: a slider for its frames, play, and masks that are the core's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from daam_core import HeatMaps
from daam_core.explorer.page_data import detail_data
from daam_core.explorer.selection import choice_mask, read_choice
from daam_core.explorer.standalone import explorer_html, write_explorer

from ..core.maps.videos import moving_house
from .chromium import Chromium
from .hands import PAGE, ROOT, drawn, middle, slide, taken_mask

FRAME = f"[...{ROOT}.querySelectorAll('.frame > img')].findLastIndex((i) => !i.hidden)"
"""Which of the stage's pictures is in front; 0 is the video's own."""


@pytest.fixture(scope="module")
def film() -> HeatMaps:
    return moving_house((1.0, 0.9, 0.8, 0.7))


@pytest.fixture
def film_page(browser: Chromium, film: HeatMaps, tmp_path: Path) -> Iterator[Chromium]:
    browser.events.clear()
    browser.resize(1280, 960)
    browser.open(write_explorer(film, tmp_path / "film.html"))
    yield browser
    assert browser.errors() == []


@pytest.mark.slow
def test_the_slider_shows_each_frame_with_its_heat(film_page: Chromium) -> None:
    film_page.click(*middle(film_page, "[data-word='2']"))
    seen = {drawn(film_page)}
    for frame in ("1", "2", "3", "4"):
        slide(film_page, "frame", frame)
        film_page.until(f"{PAGE}.model.part?.frames[0] === {int(frame) - 1}")
        assert film_page.js(FRAME) == int(frame)
        seen.add(drawn(film_page))
    assert len(seen) == 5
    assert film_page.js(f"{ROOT}.querySelector('[name=frame] ~ output').textContent") == "frame 4 of 4"
    slide(film_page, "frame", "0")
    film_page.until(f"{PAGE}.model.part === null")
    assert film_page.js(FRAME) == 0


@pytest.mark.slow
def test_play_goes_through_the_frames_and_stops(film_page: Chromium) -> None:
    film_page.click(*middle(film_page, ".play"))
    for number in (2, 4, 1):
        film_page.until(f"{FRAME} === {number}")
    film_page.click(*middle(film_page, ".play"))
    at = film_page.js(FRAME)
    time.sleep(0.5)
    assert film_page.js(FRAME) == at


@pytest.mark.slow
@pytest.mark.parametrize("compete", [False, True])
def test_a_frame_s_mask_is_the_core_s(film_page: Chromium, film: HeatMaps, compete: bool) -> None:
    film_page.click(*middle(film_page, "[data-word='2']"))
    slide(film_page, "frame", "4")
    film_page.until(f"{PAGE}.model.part?.frames[0] === 3")
    slide(film_page, "tau", "0.6")
    if compete:
        film_page.js(f"{ROOT}.querySelector('[name=compete]').click()")
    taken = taken_mask(film_page) > 0
    wanted = film.mask("house", "compete" if compete else "threshold", tau=0.6)[3].numpy()
    assert wanted.any() and not wanted.all()
    assert float((taken != wanted).mean()) < 0.003, "one byte a value"
    stored = film_page.js(f"JSON.stringify({PAGE}.choice())")
    assert np.array_equal(choice_mask(film, read_choice(stored)).numpy(), wanted)


def test_the_page_of_a_video_carries_its_frames(film: HeatMaps) -> None:
    data = detail_data(film, "frames", ["house"])
    assert (data.header["axis"], data.header["frames"], data.header["words"]) == ("frames", 4, ["house"])
    page = explorer_html(film)
    assert page.count("data:image/jpeg;base64,") == 4
    assert '"frames":4' in page and '"film":[]' in explorer_html(film.sum_frames())
