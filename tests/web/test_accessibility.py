"""The explorer for everybody: no violation that axe-core finds (WCAG 2.1 A and AA, contrast included), nothing moves by itself
where motion is unwanted, and heat that all kinds of colour vision can order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daam_core import HeatMaps
from daam_core.explorer.standalone import write_explorer
from daam_core.render.colormaps import colour_table

from .chromium import Chromium
from .hands import ROOT, middle

axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is in the extra `test`")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

pytestmark = pytest.mark.slow


def violations(page: Chromium) -> list[str]:
    """What axe-core finds wrong, a line each."""
    page.js(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8") + "; true")
    asked = json.dumps({"runOnly": RULES, "resultTypes": ["violations"]})
    page.js(f"(axe.run(document, {asked}).then(r => {{ window.__axe = r.violations; }}), true)")
    page.until("!!window.__axe")
    found: list[dict[str, Any]] = page.js("window.__axe")
    page.js("delete window.__axe")
    return [f"{one['id']}: {one['help']} {[node['target'] for node in one['nodes']][:4]}" for one in found]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Chromium, maps: HeatMaps, tmp_path: Path, theme: str) -> None:
    page.theme(theme)
    try:
        page.open(write_explorer(maps, tmp_path / "explorer.html"))
        assert violations(page) == []
        page.click(*middle(page, "[data-word='2']"))
        for tab in range(page.js(f"{ROOT}.querySelectorAll('[aria-label=View] button').length")):
            page.js(f"{ROOT}.querySelectorAll('[aria-label=View] button')[{tab}].click()")
            assert violations(page) == [], tab
    finally:
        page.theme("light")


def test_a_fault_would_be_found(page: Chromium) -> None:
    """axe-core looks inside the explorer's own root: grey on grey and a button without a name are told."""
    page.js(f"{ROOT}.querySelector('h2').style.cssText = 'color: #bbb; background: #aaa'; true")
    page.js(f"{ROOT}.querySelector('.root').append(document.createElement('button')); true")
    told = " ".join(violations(page))
    assert "color-contrast" in told and "button-name" in told


def test_everything_can_be_reached_and_used_by_keyboard(page: Chromium) -> None:
    """Every control that can be clicked gets the focus by Tab, in the order of the page, and shows that it has it."""
    wanted = page.js(
        f"[...{ROOT}.querySelectorAll('button, input, select, a[href]')].filter(e => e.offsetParent && !e.disabled"
        " && e.tabIndex >= 0).length"
    )
    seen = set()
    for _ in range(wanted + 6):
        page.key("Tab")
        name = page.js(f"(() => {{ const e = {ROOT}.activeElement; return e && [e.tagName, e.className, e.name || '', "
                       "e.textContent.slice(0, 30), e.getAttribute('aria-label') || ''].join('|'); })()")  # fmt: skip
        if name:
            seen.add(name)
            assert page.js(
                f"(() => {{ const s = getComputedStyle({ROOT}.activeElement); return s.outlineStyle !== 'none' || "
                "s.boxShadow !== 'none'; })()"
            ), name
    assert len(seen) >= 0.9 * wanted - 3  # controls of one name and text count once


def test_nothing_moves_where_motion_is_unwanted(page: Chromium) -> None:
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    try:
        longest = page.js(
            f"Math.max(...[...{ROOT}.querySelectorAll('*')].map(e => {{ const s = getComputedStyle(e);"
            " return Math.max(...(s.transitionDuration + ',' + s.animationDuration).split(',').map(t =>"
            " parseFloat(t) * (t.trim().endsWith('ms') ? 1 : 1000))); }))"
        )
        assert longest <= 1
    finally:
        page.send("Emulation.setEmulatedMedia", features=[])


# How eyes without one kind of cone see linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lightness(table: NDArray[np.uint8], sight: str) -> NDArray[np.float64]:
    """CIE L* of each colour as those eyes see it."""
    srgb = table.astype(np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(SIGHT[sight]).T).clip(0, 1)
    luminance = seen @ [0.2126, 0.7152, 0.0722]
    return np.asarray(np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance))


@pytest.mark.parametrize("sight", list(SIGHT))
@pytest.mark.parametrize("name", ["ember", "lagoon", "gray"])
def test_more_heat_is_lighter_for_all_kinds_of_sight(name: Any, sight: str) -> None:
    values = lightness(colour_table(name)[::8], sight)
    assert (np.diff(values) > 0).all() and values[-1] - values[0] > 50
