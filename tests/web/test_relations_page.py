"""The explorer of a record with relations: the matrix of words, and where each word looks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from daam_core import HeatMaps
from daam_core.explorer.standalone import write_explorer
from daam_core.maps.relations import Relations
from daam_core.maps.statistics import box_region, rank_region

from .chromium import Chromium
from .hands import PAGE, ROOT, drawn, middle, over, ranked
from .samples import heat_maps

pytestmark = pytest.mark.slow
LOOKS, MATRIX = "[data-choice='word']", f"{ROOT}.querySelector('.matrix')"


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    """A picture whose words look at other places than those that look at them."""
    words = ["a", "red", "house", "and", "a", "green", "tree"]
    own, other = (heat_maps(words, (128, 192), ((16, 24),), seed=seed, detail=True) for seed in (0, 5))
    n = len(words) + 3
    values = torch.rand(n, n, generator=torch.Generator().manual_seed(3)) ** 4
    relations = Relations(other.sums, values, torch.full((n,), 2.0))
    return own.each_side(lambda side: dataclasses.replace(side, relations=relations))


def open_matrix(page: Chromium) -> None:
    page.js(f"[...{ROOT}.querySelectorAll('[aria-label=View] button')].find(b => b.textContent === 'Relations').click()")
    page.until(f"!!{MATRIX}")


def test_without_relations_there_is_neither_switch_nor_view(browser: Chromium, tmp_path: Path) -> None:
    browser.open(write_explorer(heat_maps(["red", "house"], (64, 64), ((8, 8),)), tmp_path / "explorer.html"))
    assert browser.js(f"{ROOT}.querySelector(`{LOOKS}`)") is None
    assert "Relations" not in browser.js(f"{ROOT}.querySelector('[aria-label=View]').textContent")


def test_the_switch_shows_where_a_word_looks_and_back(page: Chromium, maps: HeatMaps) -> None:
    page.click(*middle(page, "[data-word='2']"))
    page.mouse("Moved", 5, 950)
    before = drawn(page)
    page.click(*middle(page, LOOKS))
    page.mouse("Moved", 5, 950)
    assert drawn(page) not in (0, before)
    native = page.js(f"[...{PAGE}.model.levels([2])[0].data]")
    wanted = maps.relation("text->image").heat_map("house").flatten().numpy()
    assert np.abs(np.array(native) - wanted).max() <= wanted.max() / 255
    where = maps.relation("text->image")
    page.mouse("Moved", *over(page, 40, 100, maps.size))
    assert ranked(page) == [r.word for r in rank_region(where, box_region(where, 100, 40, 1, 1))]
    page.click(*middle(page, "[data-choice='picture']"))
    page.mouse("Moved", 5, 950)
    page.until(f"!{PAGE}.model.looking")
    assert drawn(page) == before


def test_masks_steps_and_layers_are_of_the_places_alone(page: Chromium) -> None:
    """A mask that is taken away, and what a host stores, are Eq. 6; steps switch the view back."""
    page.click(*middle(page, "[data-word='2']"))
    page.js(f"{PAGE}.showMask(true); true")
    page.click(*middle(page, LOOKS))
    assert page.js(f"[{PAGE}.masking, {ROOT}.querySelector('.panel.mask').hidden]") == [False, True]
    page.js(f"{PAGE}.choosePart({{axis: 'steps', frames: [0]}})")
    page.until(f"{PAGE}.model.part?.axis === 'steps'")
    assert page.js(f"[{PAGE}.model.looking, {ROOT}.querySelector('.panel.mask').hidden]") == [False, False]
    page.click(*middle(page, LOOKS))
    assert page.js(f"[{PAGE}.model.looking, {PAGE}.model.part]") == [True, None]
    assert page.js(f"{ROOT}.querySelector('[name=step]').value") == "0"


def test_the_matrix_says_what_the_core_says(page: Chromium, maps: HeatMaps) -> None:
    open_matrix(page)
    names = maps.content_words
    assert page.js(f"[...{MATRIX}.querySelectorAll('tbody th')].map(c => c.textContent)") == names
    assert page.js(f"[...{MATRIX}.querySelectorAll('thead th')].map(c => c.textContent)") == names
    told = page.js(f"[...{MATRIX}.querySelectorAll('[data-pair]')].map(c => Number(c.textContent))")
    wanted = 100 * maps.word_matrix(names).flatten().double()
    assert bool(((torch.tensor(told, dtype=torch.float64) - wanted).abs() <= 0.006 + 0.05 * wanted).all())
    page.mouse("Moved", *middle(page, "[data-pair='2,6']"))
    said = page.js(f"{ROOT}.querySelector('.relations output').textContent")
    assert said.startswith("“house” attends to “tree” with ")
    assert page.js(f"[...{MATRIX}.querySelectorAll('.lit')].map(c => c.textContent)") == ["tree", "house"]
    page.js(f"{ROOT}.querySelector('[name=extras]').click()")
    page.until(f"{ROOT}.querySelectorAll('.matrix tbody th').length === 7")


def test_the_matrix_is_walked_by_keyboard(page: Chromium) -> None:
    open_matrix(page)
    assert page.js(f"{MATRIX}.querySelectorAll('[tabindex=\"0\"]').length") == 1
    page.js(f"{MATRIX}.querySelector('[tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.key(key)
    assert page.js(f"{ROOT}.activeElement.dataset.pair") == "2,5"
    assert "“house” attends to “green”" in page.js(f"{ROOT}.querySelector('.relations output').textContent")
    page.key("End")
    assert page.js(f"{ROOT}.activeElement.dataset.pair") == "2,6"
    page.key("ArrowRight")
    assert page.js(f"{ROOT}.activeElement.dataset.pair") == "2,6", "it stays inside"
    assert page.js(f"{MATRIX}.querySelectorAll('[tabindex=\"0\"]').length") == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Chromium, maps: HeatMaps, tmp_path: Path, theme: str) -> None:
    from .test_accessibility import violations

    page.theme(theme)
    try:
        page.open(write_explorer(maps, tmp_path / "explorer.html"))
        page.click(*middle(page, LOOKS))
        assert violations(page) == []
        open_matrix(page)
        assert violations(page) == []
    finally:
        page.theme("light")


def test_damaged_relations_are_one_sentence(page: Chromium) -> None:
    page.js(
        f"(() => {{ const {{header: h, atlas: a}} = structuredClone({{header: {PAGE}.data.header, atlas: {PAGE}.data.atlas}});"
        f" h.relations.looks.grids = [[3, 3]]; return {PAGE}.load({{header: h, atlas: a}}); }})()"
    )
    assert "cannot be read" in page.js(f"{ROOT}.querySelector('[role=alert]').textContent")
