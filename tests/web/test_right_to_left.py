"""Prompts in Hebrew and Arabic: their words stand as they were typed, and the arrow keys go where they point."""

from __future__ import annotations

import pytest

from daam_core import HeatMaps

from .chromium import Chromium
from .hands import ROOT, box
from .samples import heat_maps

pytestmark = pytest.mark.slow
HEBREW = ["בית", "אדום", "ועץ", "house"]


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    """The negative prompt is English, as it often is."""
    found = heat_maps(HEBREW, (64, 96), ((8, 12),))
    return found.with_negative(heat_maps(["blurry", "star"], (64, 96), ((8, 12),), seed=1))


def test_words_stand_and_are_walked_from_the_right(page: Chromium) -> None:
    lefts = [box(page, f"[data-word='{i}']")[0] for i in range(len(HEBREW))]
    assert lefts == sorted(lefts, reverse=True)
    page.js(f"{ROOT}.querySelector('[data-word=\"0\"]').focus()")
    focused = f"Number({ROOT}.activeElement.dataset.word)"
    for key, word in (("ArrowLeft", 1), ("ArrowLeft", 2), ("ArrowRight", 1), ("ArrowDown", 2)):
        page.key(key)
        assert page.js(focused) == word, key


def test_a_negative_prompt_has_its_own_direction(page: Chromium) -> None:
    page.js(
        f"[...{ROOT}.querySelectorAll('input[type=checkbox]')].find(x => x.labels[0]?.textContent.includes('More')).click()"
    )
    negative = page.js(f"[...{ROOT}.querySelectorAll('.chip.negative')].map(x => x.getBoundingClientRect().x)")
    assert len(negative) == 2 and negative == sorted(negative)
