"""The explorer of a record whose words two text encoders read: each one's tokens alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from daam_core import HeatMaps
from daam_core.explorer.standalone import write_explorer
from daam_core.prompt.prompt import Token

from .chromium import Chromium
from .hands import PAGE, ROOT, drawn, middle
from .samples import heat_maps

pytestmark = pytest.mark.slow
T5 = "[data-choice='T5']"
WORDS = ["a", "red", "house"]


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    """CLIP read three words; T5 read all but the last."""
    made = heat_maps([*WORDS, *WORDS[:2]], (128, 192), ((16, 24),), detail=True)
    prompt = made.prompt
    words = tuple(
        dataclasses.replace(word, channels=(i + 1, i + 4) if i < 2 else (i + 1,)) for i, word in enumerate(prompt.words[:3])
    )
    tokens = tuple(Token(t.column, t.text, t.channel, t.weight, "CLIP" if i < 3 else "T5") for i, t in enumerate(prompt.tokens))
    whole = dataclasses.replace(prompt, text=" ".join(WORDS), words=words, tokens=tokens)
    return made.each_side(lambda side: dataclasses.replace(side, prompt=whole))


def native(page: Chromium, word: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(page.js(f"[...{PAGE}.model.levels([{word}])[0].data]"))


def test_a_model_with_one_encoder_has_no_such_switch(browser: Chromium, tmp_path: Path) -> None:
    browser.open(write_explorer(heat_maps(["red", "house"], (64, 64), ((8, 8),)), tmp_path / "explorer.html"))
    assert browser.js(f"{ROOT}.querySelector(`[data-choice='']`)") is None


def test_each_encoder_s_tokens_are_shown_alone_and_together_again(page: Chromium, maps: HeatMaps) -> None:
    page.click(*middle(page, "[data-word='1']"))
    page.mouse("Moved", 5, 950)
    before = drawn(page)
    for name in ("T5", "CLIP"):
        page.click(*middle(page, f"[data-choice='{name}']"))
        wanted = maps.heat_map("red", encoder=name).flatten().numpy()
        assert np.abs(native(page, 1) - wanted).max() <= wanted.max() / 255
        assert page.js(f"{ROOT}.querySelector(`[data-choice='{name}']`).getAttribute('aria-pressed')") == "true"
    assert drawn(page) != before
    page.click(*middle(page, T5))
    assert not native(page, 2).any(), "T5 did not read this word"
    page.click(*middle(page, "[data-choice='']"))
    page.mouse("Moved", 5, 950)
    page.until(f"{PAGE}.model.encoder === ''")
    assert drawn(page) == before


def test_masks_and_steps_are_of_all_encoders(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='1']"))
    page.js(f"{PAGE}.showMask(true); true")
    page.click(*middle(page, T5))
    assert page.js(f"[{PAGE}.masking, {ROOT}.querySelector('.panel.mask').hidden]") == [False, True]
    page.js(f"{PAGE}.choosePart({{axis: 'steps', frames: [0]}})")
    page.until(f"{PAGE}.model.part?.axis === 'steps'")
    assert page.js(f"[{PAGE}.model.encoder, {ROOT}.querySelector('.panel.mask').hidden]") == ["", False]
    pressed = f"{ROOT}.querySelector(`[data-choice='']`).getAttribute('aria-pressed')"
    assert page.js(pressed) == "true"


def test_by_keyboard(page: Chromium) -> None:
    page.js(f"{ROOT}.querySelector(`{T5}`).focus()")
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    page.until(f"{PAGE}.model.encoder === 'T5'")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Chromium, theme: str) -> None:
    from .test_accessibility import violations

    page.theme(theme)
    try:
        page.click(*middle(page, T5))
        assert violations(page) == []
    finally:
        page.theme("light")


def test_damaged_maps_of_an_encoder_are_one_sentence(page: Chromium) -> None:
    page.js(
        f"(() => {{ const {{header: h, atlas: a}} = structuredClone({{header: {PAGE}.data.header, atlas: {PAGE}.data.atlas}});"
        f" h.encoders[0].grids = [[3, 3]]; return {PAGE}.load({{header: h, atlas: a}}); }})()"
    )
    assert "cannot be read" in page.js(f"{ROOT}.querySelector('[role=alert]').textContent")
