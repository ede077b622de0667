"""The self-contained page in a real browser, opened from disk: what a person points at, drags, slides and takes away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from daam_core import HeatMaps, masks
from daam_core.explorer.standalone import write_explorer
from daam_core.maps.statistics import box_region, rank_region

from .chromium import Chromium
from .hands import PAGE, ROOT, drawn, middle, over, ranked, slide, taken_mask
from .samples import heat_maps

pytestmark = pytest.mark.slow


def test_hovering_a_word_draws_it_and_leaving_takes_it_away(page: Chromium) -> None:
    assert drawn(page) == 0
    page.mouse("Moved", *middle(page, "[data-word='2']"))
    house = drawn(page)
    page.mouse("Moved", *middle(page, "[data-word='6']"))
    assert len({0, house, drawn(page)}) == 3
    page.mouse("Moved", 5, 950)
    assert drawn(page) == 0


def test_click_keeps_and_dragging_over_chips_makes_a_phrase(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    page.drag(middle(page, "[data-word='5']"), middle(page, "[data-word='6']"))
    assert page.js(f"{PAGE}.choice().words") == [["word:house"], ["word:green", "word:tree"]]
    page.click(*middle(page, "[data-word='2']"))
    assert page.js(f"{PAGE}.choice().words") == [["word:green", "word:tree"]]


def test_words_under_the_pointer_and_in_a_box_are_the_core_s(page: Chromium, maps: HeatMaps) -> None:
    page.mouse("Moved", *over(page, 40, 100, maps.size))
    assert ranked(page) == [r.word for r in rank_region(maps, box_region(maps, 100, 40, 1, 1))]
    page.drag(over(page, 10, 20, maps.size), over(page, 60, 60, maps.size), over(page, 89, 119, maps.size))
    assert ranked(page) == [r.word for r in rank_region(maps, box_region(maps, 20, 10, 100, 80))]


def test_the_mask_that_is_taken_is_the_core_s(page: Chromium, maps: HeatMaps) -> None:
    page.click(*middle(page, "[data-word='2']"))
    slide(page, "tau", "0.55")
    assert np.array_equal(taken_mask(page) > 0, maps.mask("house", "threshold", tau=0.55).numpy())
    page.js(f"{ROOT}.querySelector('[name=compete]').click()")
    slide(page, "grow", "3")
    grown = masks.grow(maps.mask("house", "compete", tau=0.55), 3)
    assert np.array_equal(taken_mask(page) > 0, grown.numpy())
    page.mouse("Moved", 5, 950)
    page.js(f"{ROOT}.activeElement?.blur()")
    shown = page.js(f"{ROOT}.querySelector('.area').textContent")
    assert abs(float(shown.split()[0]) - 100 * float(grown.float().mean())) <= 0.5


def test_steps_and_layers_change_the_picture(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    page.mouse("Moved", 5, 950)
    page.js(f"{ROOT}.activeElement?.blur()")
    everything = drawn(page)
    slide(page, "step", "1")
    page.until(f"{PAGE}.model.part?.axis === 'steps'")
    first = drawn(page)
    page.js(f"{ROOT}.querySelector('[data-layer=\"0\"]').click()")
    page.until(f"{PAGE}.model.part?.axis === 'layers'")
    assert len({0, everything, first, drawn(page)}) == 4


def test_arrow_keys_walk_the_words(page: Chromium) -> None:
    page.js(f"{ROOT}.querySelector('[data-word=\"0\"]').focus()")
    for _ in range(2):
        page.key("ArrowRight")
    assert page.js(f"{ROOT}.activeElement.dataset.word") == "2"
    page.key("Enter")
    assert page.js(f"{PAGE}.choice().words") == [["word:house"]]
    page.key("End")
    page.key("ArrowLeft", shift=True)
    assert page.js(f"{PAGE}.hovered") == [5, 6]
    page.key("Enter")
    assert page.js(f"{PAGE}.choice().words") == [["word:house"], ["word:green", "word:tree"]]
    page.key("ArrowLeft")
    page.key("Enter")
    assert page.js(f"{PAGE}.choice().words")[-1] == ["word:a#2"], "without Shift it is one word again"


def test_every_view_opens(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    page.click(*middle(page, "[data-word='6']"))
    counts = {}
    for view in ("Words", "Compare", "Layers"):
        page.js(f"{PAGE}.show('{view}')")
        page.until(f"{ROOT}.querySelectorAll('.sheets canvas').length > 0")
        counts[view] = page.js(f"{ROOT}.querySelectorAll('.sheets canvas').length")
    assert counts == {"Words": 4, "Compare": 2, "Layers": 2}


def test_a_hostile_prompt_is_text(browser: Chromium, tmp_path: Path) -> None:
    words = ["</script>", "<script>window.broken=1</script>", "<img src=x onerror=window.broken=1>", "\u2028", "tree"]
    browser.events.clear()
    browser.open(write_explorer(heat_maps(words, (64, 64), ((8, 8),)), tmp_path / "explorer.html"))
    assert browser.js("window.broken") is None
    assert browser.js(f"[...{ROOT}.querySelectorAll('.prompt .word')].map(c => c.textContent)") == words
    assert browser.errors() == []


def test_three_hundred_words_fit_the_page(browser: Chromium, tmp_path: Path) -> None:
    words = [f"word{i}" for i in range(300)]
    browser.resize(400, 800)
    browser.open(write_explorer(heat_maps(words, (64, 64), ((8, 8),)), tmp_path / "explorer.html"))
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.js(f"{ROOT}.querySelectorAll('.prompt .word').length") == 300


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("h = null", "no heat maps"),
        ("h.version = 99", "version 99"),
        ("h.format = 'x'", "not heat maps of DAAM Lens"),
        ("a = a.slice(0, 60)", "cannot be read"),
        ("h.words.pop()", "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(page: Chromium, change: str, says: str) -> None:
    page.js(
        f"(() => {{ let {{header: h, atlas: a}} = structuredClone({{header: {PAGE}.data.header, atlas: {PAGE}.data.atlas}});"
        f" {change}; return {PAGE}.load({{header: h, atlas: a}}); }})()"
    )
    assert says in page.js(f"{ROOT}.querySelector('[role=alert]').textContent")


def test_a_stored_choice_comes_back(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    page.js(f"{PAGE}.changeMask({{...{PAGE}.settings, tau: 0.7}})")
    under_way = page.js(f"(() => {{ {PAGE}.load({{...{PAGE}.data, choice: {PAGE}.choice()}}); return {PAGE}.choice(); }})()")
    assert under_way["words"] == [["word:house"]], "who turns to another picture now keeps what was chosen"
    page.until(f"{PAGE}.model !== null")
    assert page.js(f"{PAGE}.choice()")["words"] == [["word:house"]]
    assert page.js(f"{ROOT}.querySelector('[name=tau]').value") == "0.7"


def test_who_turns_on_while_a_picture_is_read_goes_on_seeing_heat(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    load = f"{PAGE}.load({{...data, choice: {PAGE}.choice()}});"
    page.js(f"(() => {{ const data = {PAGE}.data; {load} {load} }})()")
    page.until(f"{PAGE}.model !== null")
    assert page.js(f"[{PAGE}.choice().words, {PAGE}.masking]") == [[["word:house"]], False]


def test_samples_are_what_they_claim(maps: HeatMaps) -> None:
    """Steps and layers of the sample add up to its sums, as a recording's do."""
    parts = sum(maps.select(steps=[j]).heat_map("house") for j in range(maps.steps))
    assert torch.allclose(torch.as_tensor(parts), maps.heat_map("house"), rtol=2e-3, atol=1e-3)
