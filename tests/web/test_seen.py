"""What is seen and heard: colours of kept words, overlap, focus, names for screen readers, contrast, zoom."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from daam_core import HeatMaps
from daam_core.explorer.standalone import web_folder
from daam_core.masks.metrics import iou

from .chromium import Chromium
from .hands import PAGE, ROOT, middle

pytestmark = pytest.mark.slow
DUSK = (14, 13, 26)
TONES = """(() => {
  const probe = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = (text) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    const d = probe.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentNode?.host ?? e.parentNode) { if (!(e instanceof Element)) continue;
    const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelector('daam-explorer').shadowRoot.querySelectorAll('.root *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest(':disabled, .slider:has(:disabled)')) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    found.push([e.textContent.trim().slice(0, 30), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]);
  }
  return found; })()"""


@pytest.fixture
def two(page: Chromium) -> Chromium:
    """House and tree are kept, and nothing is pointed at."""
    page.click(*middle(page, "[data-word='2']"))
    page.click(*middle(page, "[data-word='6']"))
    page.mouse("Moved", 5, 950)
    page.js(f"{ROOT}.activeElement?.blur()")
    return page


def overlay(page: Chromium) -> NDArray[np.uint8]:
    """What lies over the picture, `[H, W, 4]`."""
    width, height, values = page.js(
        f"(() => {{ const c = {ROOT}.querySelector('.frame .overlay');"
        " return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; })()"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def stretched(heat: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ((heat - heat.min()) / (heat.max() - heat.min())).numpy()
    return found


def test_each_kept_word_has_its_places_in_its_own_colour(two: Chromium, maps: HeatMaps) -> None:
    """The partition's winner at every pixel is the core's; the legend has the same colours."""
    shown = overlay(two)
    size = shown.shape[:2]
    house, tree = (stretched(maps.heat_map(word, size)) for word in ("house", "tree"))
    wanted = np.where(np.maximum(house, tree) < 0.4, 0, np.where(house >= tree, 1, 2))
    text = (web_folder() / "colours.js").read_text(encoding="utf-8")
    colours = re.findall(r'"#([0-9a-f]{6})"', text)[:2]
    palette = np.array([DUSK, *(tuple(bytes.fromhex(colour)) for colour in colours)])
    nearest = np.abs(shown[..., None, :3].astype(int) - palette).sum(-1).argmin(-1)
    assert float((nearest == wanted).mean()) > 0.995
    legend = two.js(
        f"[...{ROOT}.querySelectorAll('.legend span')].map(e => [e.textContent, e.style.getPropertyValue('--mine')])"
    )
    assert legend == [["house", f"#{colours[0]}"], ["tree", f"#{colours[1]}"]]


def test_kept_words_add_up(two: Chromium, maps: HeatMaps) -> None:
    two.click(*middle(two, "[data-choice='sum']"))
    two.mouse("Moved", 5, 950)
    two.until(f"{ROOT}.querySelector('.frame .overlay').width === {PAGE}.model.heatSize[1]")
    shown = overlay(two)
    size = shown.shape[:2]
    heat = stretched(maps.heat_map("house", size) + maps.heat_map("tree", size))
    risen = np.clip((heat - 0.12) / 0.68, 0, 1)
    alpha = 255 * 0.86 * risen**2 * (3 - 2 * risen)
    assert float(np.abs(shown[..., 3] - alpha).max()) <= 3


def test_two_words_are_compared_by_the_core_s_overlap(two: Chromium, maps: HeatMaps) -> None:
    two.js(f"{PAGE}.show('Compare')")
    assert not two.js(f"{ROOT}.querySelector('[data-choice=sum]').checkVisibility()"), "it would do nothing here"
    size = tuple(two.js(f"{PAGE}.model.drawn"))
    for tau in (0.4, 0.25):
        two.js(f"{PAGE}.changeMask({{...{PAGE}.settings, tau: {tau}}})")
        house, tree = (maps.mask(word, "threshold", tau=tau, size=size) for word in ("house", "tree"))
        assert two.js(f"{ROOT}.querySelector('.iou b').textContent") == f"{float(iou(house, tree)):.2f}"


def test_a_card_of_the_contact_sheet_keeps_its_word(page: Chromium) -> None:
    page.js(f"{PAGE}.show('Words')")
    names = page.js(f"[...{ROOT}.querySelectorAll('.sheet .card b')].map(e => e.textContent)")
    assert sorted(names) == ["green", "house", "red", "tree"]
    page.click(*middle(page, ".sheet .card:nth-child(2)"))
    assert page.js(f"{PAGE}.choice().words") == [[f"word:{names[1]}"]]
    assert page.js(f"{ROOT}.querySelector('.card[aria-pressed=true] b').textContent") == names[1]
    page.js(f"{ROOT}.querySelector('[name=extras]').click()")
    every = page.js(f"[...{ROOT}.querySelectorAll('.sheet .card b')].map(e => e.textContent)")
    assert every == ["a", "red", "house", "and", "a#2", "green", "tree", "<start>", "<end>", "<padding>"]


def test_start_end_and_padding_are_behind_a_switch(page: Chromium) -> None:
    extra = f"{ROOT}.querySelector('.line.extra').checkVisibility()"
    assert not page.js(extra)
    page.js(f"{ROOT}.querySelector('[name=extras]').click()")
    assert page.js(extra)
    page.click(*middle(page, ".chip.special"))
    assert page.js(f"{PAGE}.choice().words") == [["special:<start>"]]


def test_the_keyboard_alone_is_enough_and_is_seen(page: Chromium) -> None:
    """Two words are kept, then Tab goes through all controls, one stop for the words; each has a ring around it."""
    stops: list[tuple[str, str, str, float]] = []
    for _ in range(60):
        for kind in ("rawKeyDown", "keyUp"):
            page.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        if not stops:
            for key in ("End", "Enter", "ArrowLeft", "Enter"):
                page.key(key)
            assert page.js(f"{PAGE}.choice().words") == [["word:tree"], ["word:green"]]
        found = page.js(
            f"(() => {{ const e = {ROOT}.activeElement; if (!e) return null; const s = getComputedStyle(e);"
            " return [e.dataset.word ?? e.name ?? '', e.textContent, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"
        )
        if found is None:
            break
        stops.append(tuple(found))
    assert all(style == "solid" and width >= 2 for _, _, style, width in stops), stops
    names = [name for name, *_ in stops if name]
    assert {"tau", "soft", "compete", "invert", "grow", "feather", "show", "extras", "step"} <= set(names)
    assert len([name for name in names if name.isdigit()]) == 1
    assert {"Picture", "Lasso", "Together", "Clear", "Save mask as PNG", "▶"} <= {text for _, text, *_ in stops}


def test_screen_readers_get_a_name_for_everything(two: Chromium) -> None:
    two.js(f"{ROOT}.querySelector('[name=extras]').click()")
    two.send("Accessibility.enable")
    nodes = [node for node in two.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    two.send("Accessibility.disable")
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    asked = [[role, name] for role, name in named if role in ("button", "slider", "checkbox", "image", "region", "group")]
    assert [role for role, name in asked if not name] == []
    words = [name for role, name in asked if role == "button" and "of the attention" in name]
    assert any(re.fullmatch(r"house, [\d.]+ % of the attention", name) for name in words)
    assert {"Level τ", "Grow", "Feather", "Step, 0 is all together"} <= {name for role, name in asked if role == "slider"}
    assert "a red house and a green tree" in {name for role, name in asked if role == "image"}


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, two: Chromium) -> Iterator[Chromium]:
    two.theme(request.param)
    yield two
    two.theme("")


def test_text_stands_out_in_light_and_dark(themed: Chromium) -> None:
    """WCAG's 4.5 for everything that is not switched off, words of every shade among it."""
    themed.js(f"{ROOT}.querySelector('[name=extras]').click()")
    weak = [(text, round(ratio, 2)) for text, ratio in themed.js(TONES) if ratio < 4.5]
    assert weak == []


def test_twice_as_large_it_still_fits(two: Chromium) -> None:
    """A zoom of 200 % is a window of half the size: nothing is cut off sideways, in any view."""
    two.send("Emulation.setDeviceMetricsOverride", width=640, height=480, deviceScaleFactor=2, mobile=False)
    for view in ("Picture", "Words", "Compare", "Layers"):
        two.js(f"{PAGE}.show('{view}')")
        two.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        assert two.js("document.documentElement.scrollWidth <= innerWidth"), view
        cut = two.js(
            f"[...{ROOT}.querySelectorAll('button, label, output, figcaption, h2')].filter(e => e.checkVisibility() &&"
            " (e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth + 1 && e.clientWidth))"
            ".map(e => e.textContent)"
        )
        assert cut == [], view
