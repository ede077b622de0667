"""The Explorer node on ComfyUI's own page: point, click, drag, slide, take the mask, queue again."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from daam_core import HeatMaps

from ..web.chromium import Chromium, find
from .hosts import ROOT, Server
from .page import ComfyPage

BROWSER = find()
pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome"),
]
MODES = ["canvas", "Nodes 2.0"]


@pytest.fixture(scope="module", params=MODES)
def page(request: pytest.FixtureRequest, server: Server) -> Iterator[ComfyPage]:
    if request.param == "Nodes 2.0" and server.version == "0.3.64":
        pytest.skip("this version's page has no Nodes 2.0")
    assert BROWSER is not None
    with Chromium(BROWSER, (1500, 1000), 120) as browser:
        opened = ComfyPage(browser, server, nodes_2=request.param == "Nodes 2.0")
        # ComfyUI's page imports every file under web/: that alone must do nothing.
        assert browser.js("customElements.get('daam-explorer') === undefined")
        yield opened


def workflow() -> dict[str, Any]:
    """The example, with few steps and nothing chosen; its mask is written as pictures, its maps as records."""
    data: dict[str, Any] = json.loads((ROOT / "example_workflows" / "10 Attention explorer.json").read_text(encoding="utf-8"))
    nodes = {node["type"]: node for node in data["nodes"]}
    nodes["KSampler"]["widgets_values"][2] = 6
    nodes["DaamLensExplorer"]["widgets_values"] = [""]
    for number, (kind, inputs, values) in enumerate(
        [
            ("MaskToImage", [("mask", "MASK", 20)], []),
            ("PreviewImage", [("images", "IMAGE", 21)], []),
            ("DaamLensSaveMaps", [("maps", "DAAM_LENS_MAPS", 22)], ["daam/explored"]),
        ],
        20,
    ):
        data["nodes"].append(
            {
                "id": number, "type": kind, "pos": [0, 700 + 100 * (number - 20)], "size": [210, 60], "flags": {}, "order": 20,
                "mode": 0, "properties": {}, "widgets_values": values,
                "inputs": [{"name": n, "type": t, "link": link} for n, t, link in inputs],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [21]}] if kind == "MaskToImage" else [],
            }
        )  # fmt: skip
    nodes["DaamLensExplorer"]["outputs"][0]["links"] = [20]
    nodes["DaamLensHeatMaps"]["outputs"][0]["links"].append(22)
    data["links"] += [[20, 11, 0, 20, 0, "MASK"], [21, 20, 0, 21, 0, "IMAGE"], [22, 8, 0, 22, 0, "DAAM_LENS_MAPS"]]
    data["last_node_id"], data["last_link_id"] = 22, 22
    return data


def masks_of(entry: dict[str, Any], server: Server) -> list[np.ndarray[Any, Any]]:
    """The masks that left the node, uint8 `[H, W]` each."""
    found = []
    for image in entry["outputs"]["21"]["images"]:
        picture = cv2.imread(str(server.base / image["type"] / image["subfolder"] / image["filename"]), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        found.append(picture)
    return found


def records_of(entry: dict[str, Any]) -> list[HeatMaps]:
    return [HeatMaps.load(path) for path in entry["outputs"]["22"]["text"][0].splitlines()]


def cached(entry: dict[str, Any]) -> set[str]:
    return set(next(data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached"))


def slide(page: ComfyPage, name: str, value: str) -> None:
    page.browser.js(
        f"(() => {{ const s = {page.root()}.querySelector('[name={name}]'); s.value = '{value}';"
        " s.dispatchEvent(new Event('input')); })()"
    )


def rest(page: ComfyPage) -> None:
    """The pointer goes where nothing is."""
    page.browser.mouse("Moved", 1490, 990)


def screen(page: ComfyPage, folder: Path) -> np.ndarray[Any, Any]:
    """What is seen of the picture, int `[H, W, 3]`, without its rounded corners."""
    left, top, width, height = page.browser.js(
        f"(() => {{ const r = {page.root()}.querySelector('.frame').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    seen = cv2.imread(str(page.browser.screenshot(folder / "seen.png")))
    assert seen is not None
    return seen[int(top) + 8 : int(top + height) - 8, int(left) + 8 : int(left + width) - 8].astype(int)


def test_a_word_becomes_a_mask_and_only_the_node_runs_again(page: ComfyPage) -> None:
    """Hover, click, drag over chips, lasso, slider, use, queue: the mask that comes out is the core's."""
    page.open(workflow())
    assert "Queue the graph" in page.text("[role=alert]")
    first = page.queue()
    maps = records_of(first)
    assert all(float(mask.max()) == 0 for mask in masks_of(first, page.server))
    page.shown()
    assert page.drawn() == 0
    page.browser.mouse("Moved", *page.middle("[data-word='2']"))
    assert page.drawn() != 0
    rest(page)
    assert page.drawn() == 0
    page.browser.click(*page.middle("[data-word='2']"))
    page.browser.drag(page.middle("[data-word='5']"), page.middle("[data-word='6']"))
    assert page.browser.js(f"{page.element()}.choice().words") == [["word:house"], ["word:green", "word:tree"]]
    page.browser.click(*page.middle("[data-choice='lasso']"))
    page.browser.drag(*(page.middle(".frame", at=at) for at in [(0.3, 0.3), (0.6, 0.3), (0.6, 0.6), (0.4, 0.7), (0.3, 0.4)]))
    assert page.text(".panel h2 span") == "in the region"
    slide(page, "tau", "0.55")
    rest(page)
    assert page.text(".area").endswith("of the picture")
    page.browser.click(*page.middle("button.main"))
    page.browser.until(f"{page.root()}.querySelector('[role=status]').textContent.startsWith('Stored')")
    assert json.loads(page.stored())["words"] == [["word:house"], ["word:green", "word:tree"]]
    second = page.queue()
    assert {"6", "8"} <= cached(second)
    assert "11" not in cached(second)
    for mask, one in zip(masks_of(second, page.server), maps, strict=True):
        wanted = one.mask("house", "threshold", tau=0.55) | one.mask("green tree", "threshold", tau=0.55)
        assert np.array_equal(mask > 127, wanted.numpy())
    assert page.complaints() == []


def test_a_hover_is_on_the_screen(page: ComfyPage, tmp_path: Path) -> None:
    """Not in the canvas's memory alone: where the picture is seen, the screen changes, stays so, and changes back."""
    page.open(workflow())
    page.queue()
    page.shown()
    rest(page)
    plain = screen(page, tmp_path)
    page.browser.mouse("Moved", *page.middle("[data-word='2']"))
    time.sleep(0.6)
    lit = screen(page, tmp_path)
    # The word's heat covers a part of the picture; where there is none, the picture keeps its colours.
    assert 0.05 < float((np.abs(lit - plain).max(-1) > 12).mean()) < 0.5
    time.sleep(0.6)
    assert np.array_equal(screen(page, tmp_path), lit)
    rest(page)
    time.sleep(0.3)
    assert float((np.abs(screen(page, tmp_path) - plain).max(-1) > 12).mean()) < 0.01


def test_a_word_that_the_prompt_lacks_is_said_with_every_run(page: ComfyPage) -> None:
    """Whether the page is new or not; what was stored comes back with the old prompt."""
    page.open(workflow())
    page.queue()
    page.shown()
    page.browser.click(*page.middle("[data-word='2']"))
    page.browser.click(*page.middle("[data-word='6']"))
    rest(page)
    page.browser.click(*page.middle("button.main"))
    page.browser.until(f"{page.root()}.querySelector('[role=status]').textContent.startsWith('Stored')")
    says = f"{page.root()}.querySelector('[role=status]')?.textContent ?? ''"
    prompt = "app.graph._nodes.find(n => n.type === 'CLIPTextEncode').widgets[0].value"
    for text in ("a red car and a green tree", "a blue car and a tree"):
        page.browser.js(f"{prompt} = {json.dumps(text)}")
        entry = page.queue()
        page.browser.until(f"{page.element()}.model?.page.header.prompt === {json.dumps(text)}")
        page.browser.until(f"{says}.includes('“house”')")
        assert "“tree”" not in page.browser.js(says)
        assert page.browser.js(f"{page.element()}.choice().words") == [["word:tree"]]
        assert all(mask.any() for mask in masks_of(entry, page.server))
    page.browser.js(f"{prompt} = 'a red house and a green tree'")
    page.queue()
    page.browser.until(f"{page.element()}.model?.page.header.prompt === 'a red house and a green tree'")
    page.browser.until(f"{page.element()}.choice().words.length === 2")
    assert page.browser.js(says) == ""
    assert page.complaints() == []


def test_a_node_that_comes_back_has_the_theme_of_now(page: ComfyPage) -> None:
    """The page went from dark to light while the node was out of the graph."""
    page.open(workflow())
    page.queue()
    page.shown()
    page.browser.js("window.explorer = app.graph._nodes.find(n => n.type === 'DaamLensExplorer'); app.graph.remove(explorer);")
    for colour, theme in (("#ddd", "dark"), ("#222", "light")):
        page.browser.js(f"document.documentElement.style.setProperty('--input-text', '{colour}')")
        page.browser.js("app.graph.add(explorer); app.canvas.setDirty(true, true)")
        page.browser.until(f"{page.element()}?.getAttribute('theme') === '{theme}'")
        page.browser.js("app.graph.remove(explorer)")
        time.sleep(0.3)
    page.browser.js("document.documentElement.style.removeProperty('--input-text')")


def test_the_node_may_have_any_size(page: ComfyPage) -> None:
    """Nothing is cut off sideways, and the picture grows with the node."""
    page.open(workflow())
    page.queue()
    page.shown()
    widths = []
    for size in ((420, 520), (860, 780), (1300, 820)):
        page.browser.js(
            f"(() => {{ const n = app.graph._nodes.find(n => n.type === 'DaamLensExplorer'); n.setSize([{size[0]}, {size[1]}]);"
            " app.canvas.setDirty(true, true); })()"
        )
        time.sleep(0.8)
        width, inner, frame = page.browser.js(
            f"[{page.element()}.scrollWidth, {page.element()}.clientWidth,"
            f" {page.root()}.querySelector('.frame').getBoundingClientRect().width]"
        )
        assert width <= inner
        assert inner > 0.85 * size[0], "the page fills the node"
        widths.append(frame)
    assert widths[0] >= 180
    assert widths == sorted(widths)


def test_pictures_of_a_batch_are_paged_and_refined_on_the_server(page: ComfyPage) -> None:
    """The third picture's mask by the method `best` is drawn as the core makes it, and goes on as it was drawn."""
    page.open(workflow())
    first = page.queue()
    page.shown()
    page.browser.click(*page.middle("[data-word='6']"))
    for _ in range(2):
        page.browser.js("[...document.querySelectorAll('.daam-lens-explorer button')][1].click()")
        time.sleep(0.3)
    page.browser.until("document.querySelector('.daam-lens-explorer span').textContent === 'Picture 3 of 4'")
    page.browser.until(f"{page.element()}.data?.picture?.includes('/2/')")
    page.shown()
    assert page.browser.js(f"{page.element()}.choice().words") == [["word:tree"]]
    page.browser.click(*page.middle("[data-method='best']"))
    page.browser.until(f"{page.root()}.querySelector('[data-method=best]').getAttribute('aria-pressed') === 'true'")
    rest(page)
    wanted = [maps.mask("tree", "best") for maps in records_of(first)]
    made = page.browser.js(
        f"(() => {{ const e = {page.element()}; return [...e.model.mask(e.picks, e.settings, e.model.page.size)]; }})()"
    )
    assert np.array_equal(np.array(made).reshape(128, 128) > 0, wanted[2].numpy())
    page.browser.click(*page.middle("button.main"))
    page.browser.until(f"{page.root()}.querySelector('[role=status]').textContent.startsWith('Stored')")
    for mask, one in zip(masks_of(page.queue(), page.server), wanted, strict=True):
        assert np.array_equal(mask > 127, one.numpy())
    assert page.complaints() == []


def test_a_saved_workflow_comes_back_with_its_choice(page: ComfyPage) -> None:
    """Also one of steps; and two explorers in one graph have a choice each."""
    data = workflow()
    chosen = {"words": [["word:house"]], "settings": {"tau": 0.3, "invert": True}, "part": {"axis": "steps", "frames": [4]}}
    other = copy.deepcopy(next(node for node in data["nodes"] if node["type"] == "DaamLensExplorer"))
    other.update(id=30, pos=[1750, 1000], outputs=[])
    other["inputs"][0]["link"] = 30
    next(n for n in data["nodes"] if n["type"] == "DaamLensHeatMaps")["outputs"][0]["links"].append(30)
    data["links"].append([30, 8, 0, 30, 0, "DAAM_LENS_MAPS"])
    next(n for n in data["nodes"] if n["id"] == 11)["widgets_values"] = [json.dumps(chosen)]
    data["nodes"].append(other)
    page.open(data)
    entry = page.queue()
    for mask, one in zip(masks_of(entry, page.server), records_of(entry), strict=True):
        wanted = ~one.select(steps=[4]).mask("house", "threshold", tau=0.3, size=one.size)
        assert np.array_equal(mask > 127, wanted.numpy())
    saved = page.browser.js("app.graph.serialize()")
    page.open(saved)
    page.queue()
    stored = [json.loads(page.stored(i) or "null") for i in range(2)]
    assert sorted(stored, key=str) == sorted([chosen, None], key=str)
    which = stored.index(chosen)
    for i in range(2):
        page.shown(i)
    page.browser.until(f"{page.element(which)}.model.part?.axis === 'steps'")
    assert page.browser.js(f"{page.element(which)}.choice()") == {
        "words": [["word:house"]], "part": {"axis": "steps", "frames": [4]},
        "settings": {"tau": 0.3, "soft": False, "compete": False, "grow": 0, "feather": 0, "invert": True, "method": ""},
    }  # fmt: skip
    assert page.text("output", which) == "step 5 of 6"
    assert page.browser.js(f"{page.root(which)}.querySelector('[name=show]').checked"), "the stored mask is what is seen"
    assert page.browser.js(f"{page.element(1 - which)}.choice().words") == []
    assert page.complaints() == []


def test_an_explorer_in_a_subgraph_shows_its_own_run(page: ComfyPage) -> None:
    """A node outside may have the number of the one inside, and the page keeps what either gave out."""
    page.open(workflow())
    page.browser.js(
        "(() => { const inner = ['DaamLensExplorer', 'DaamLensHeatMaps', 'KSampler', 'DaamLensRecord'];"
        " const made = app.graph.convertToSubgraph(new Set(app.graph._nodes.filter(n => inner.includes(n.type))));"
        " window.within = made.subgraph; app.canvas.setGraph(made.subgraph); })()"
    )
    entry = page.queue()
    (run,) = [out["daam_lens"][0]["run"] for out in entry["outputs"].values() if "daam_lens" in out]
    page.browser.until(f"{page.element()}?.data?.picture?.includes('{run}') === true")
    page.browser.js(
        "(() => { const n = within._nodes.find(n => n.type === 'DaamLensExplorer');"
        " app.nodeOutputs[n.id] = {daam_lens: [{run: 'another', pictures: 1, missing: []}]}; n.configure(n.serialize()); })()"
    )
    time.sleep(0.3)  # longer than the node waits for the page to have its outputs
    assert page.browser.js(f"{page.element()}.data.picture.includes('{run}') && !{page.root()}.querySelector('[role=alert]')")
    assert page.complaints() == []


def test_a_lost_connection_is_a_sentence(page: ComfyPage) -> None:
    """Steps that cannot be had leave the rest as it is; a picture that is not known any more says what to do."""
    page.open(workflow())
    page.queue()
    page.shown()
    page.browser.js(f"{page.element()}.data.detail = () => fetch('http://127.0.0.1:9/').then(() => null)")
    page.browser.js(f"{page.element()}.choosePart({{axis: 'steps', frames: [0]}})")
    assert "connection" in page.text("[role=status]")
    page.browser.js(
        "app.graph._nodes.find(n => n.type === 'DaamLensExplorer').onExecuted({daam_lens: [{run: 'nobody', pictures: 1}]})"
    )
    page.browser.until(f"{page.root()}.querySelector('[role=alert]') != null")
    assert "Queue the graph again" in page.text("[role=alert]")
