"""The explorer follows the language of who looks at it; words of a prompt stay what was typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daam_core.explorer.standalone import write_explorer

from .chromium import Chromium
from .hands import ROOT
from .samples import heat_maps

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("tag", "language"), [("zh-CN", "zh"), ("ja", "ja"), ("de-AT", "de"), ("fr", "")])
def test_it_speaks_the_browsers_language(page: Chromium, tmp_path: Path, tag: str, language: str) -> None:
    agent = page.js("navigator.userAgent")
    page.send("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=tag)
    try:
        # A prompt of words that the page has texts for: they must not be taken for its own.
        page.open(write_explorer(heat_maps(["Mask", "Layers", "Box"], (96, 96), ((12, 12),)), tmp_path / "explorer.html"))
        texts = json.loads((HOME / "locales" / language / "page.json").read_text("utf-8")) if language else {}
        heading = page.js(f"{ROOT}.querySelector('.panel.mask h2 label').textContent")
        assert heading == texts.get("Mask", "Mask")
        assert page.js(f"{ROOT}.querySelector('[aria-label=\"{texts.get('View', 'View')}\"] button').textContent") == texts.get(
            "Picture", "Picture"
        )
        assert page.js(f"[...{ROOT}.querySelectorAll('[data-word]')].map(c => c.textContent.trim()).slice(0, 3)") == [
            "Mask", "Layers", "Box",
        ]  # fmt: skip
    finally:
        page.send("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage="en-US")
