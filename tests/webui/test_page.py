"""The page in a browser: tick, generate, look closer, point at a word, take its mask to "Inpaint upload"."""

from __future__ import annotations

import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daam_core import HeatMaps
from tests.web import chromium
from tests.web.chromium import Chromium

from .hosts import picture
from .running import PROMPT, Live

pytestmark = [pytest.mark.host, pytest.mark.slow]
EXPLORER = "document.querySelector('daam-explorer').shadowRoot"
SENDER = "#daam_lens_send_txt2img"


@pytest.fixture(scope="module")
def page(live: Live) -> Iterator[Chromium]:
    """The host's page, ready; every test goes on from where the one before it left the page."""
    path = chromium.find()
    if path is None:
        pytest.skip(f"no browser: CHROMIUM_PATH is not set, and none of {', '.join(chromium.NAMES)} is on PATH")
    with Chromium(path, (1400, 1100), timeout=120) as browser:
        browser.send("Page.navigate", url=f"{live.server.url}/?__theme=light")
        browser.until("!!document.querySelector('#daam_lens_explorer .daam-lens-bar')")
        # The presets of some hosts arrive after the page.
        if live.name == "forge":
            browser.until("document.querySelector('#txt2img_height input[type=number]').value == '640'")
        if live.name == "neo":
            browser.until("document.querySelector('#txt2img_steps input[type=number]').value == '32'")
        fields = {"#txt2img_prompt textarea": PROMPT, "#txt2img_steps input[type=number]": "2", "#txt2img_seed input": "5"}
        fields |= {f"#txt2img_{side} input[type=number]": str(live.small) for side in ("width", "height")}
        for selector, value in fields.items():
            put(browser, selector, value)
        yield browser


def put(page: Chromium, selector: str, value: str) -> None:
    """Types a value into a field, as gradio notices it, until it stays: while a page loads, its fields are made anew."""
    typed = f"(e.value = {json.dumps(value)}, updateInput(e), false)"
    page.until(f"(e => e && (e.value === {json.dumps(value)} || {typed}))(document.querySelector({json.dumps(selector)}))")


def click(page: Chromium, selector: str) -> None:
    page.js(f"document.querySelector({json.dumps(selector)}).click()")


def images(page: Chromium) -> int:
    """Different pictures in the gallery: one that is looked at is there twice."""
    return int(page.js("new Set([...document.querySelectorAll('#txt2img_gallery img')].map(e => e.src)).size"))


def pixels(page: Chromium, selector: str) -> np.ndarray:
    """An image of the page as uint8 `[H, W, 3]`."""
    draw = (
        f"(e => {{ const c = document.createElement('canvas'); c.width = e.naturalWidth; c.height = e.naturalHeight;"
        f" c.getContext('2d').drawImage(e, 0, 0); return c.toDataURL() }})(document.querySelector({json.dumps(selector)}))"
    )
    return picture(page.js(draw))


def generate(page: Chromium) -> None:
    """Presses Generate, again where the page was not listening yet, and waits for what we show below the picture."""
    press(page)
    page.until(f"document.querySelector('{SENDER}')?.offsetParent != null")


def press(page: Chromium) -> None:
    end = time.monotonic() + page.timeout
    while not page.js("document.querySelector('#txt2img_interrupt').style.display == 'block'"):
        assert time.monotonic() < end, "Generate does nothing"
        click(page, "#txt2img_generate")
        time.sleep(1)


def explorer(page: Chromium) -> None:
    """Waits until the tab shows a picture."""
    page.until("document.querySelector('daam-explorer')?.shadowRoot.querySelector('.root') != null")


def chip(word: str) -> str:
    """A word of the prompt in the explorer, as the page's script finds it."""
    return f"[...{EXPLORER}.querySelectorAll('.chip')].find(c => c.textContent == '{word}')"


def middle(page: Chromium, word: str) -> tuple[float, float]:
    """The middle of a word's chip, which is brought into view: hosts keep the page where it was scrolled to."""
    page.js(f"{chip(word)}.scrollIntoView({{block: 'center'}})")
    x, y = page.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({chip(word)}.getBoundingClientRect())")
    return x, y


def point(page: Chromium, word: str) -> None:
    """The pointer on a word, wherever the page moves it while it settles, until the word is lit and a scale of heat shown."""
    end = time.monotonic() + page.timeout
    while not page.js(f"{chip(word)}.classList.contains('lit') && {EXPLORER}.querySelector('.bar .ramp') != null"):
        assert time.monotonic() < end, "pointing at a word shows nothing"
        page.mouse("Moved", *middle(page, word))
        time.sleep(0.1)


def test_tick_and_generate(page: Chromium) -> None:
    """Maps stand behind the picture, the report and the words below it."""
    click(page, "[id$=daam_lens_enabled-checkbox] input")
    generate(page)
    page.until("document.querySelectorAll('#txt2img_gallery img').length >= 5")
    assert images(page) == 5  # the picture, and an overlay of each content word
    report = page.js("document.querySelector('#daam_lens_report_txt2img').textContent")
    assert all(word in report for word in ("red", "house", "green", "tree"))


def test_send_from_under_the_picture(page: Chromium, live: Live) -> None:
    click(page, "#daam_lens_inpaint_txt2img")
    page.until("!!document.querySelector('#img_inpaint_mask img') && !!document.querySelector('#img_inpaint_base img')")
    assert page.js("document.querySelector('#img_inpaint_mask').offsetParent != null"), "the tab did not switch"
    assert page.js("document.querySelector('#img2img_prompt textarea').value") == PROMPT
    assert page.js("document.querySelector('#img2img_width input[type=number]').value") == str(live.small)
    assert pixels(page, "#img_inpaint_mask img").shape == (live.small, live.small, 3)


def test_the_tab_shows_the_newest_picture(page: Chromium) -> None:
    page.js("daamLens.openTab()")
    explorer(page)
    # What is off says why, beside itself.
    assert page.js(f"{EXPLORER}.querySelector('.mask .main').disabled")
    assert (
        page.js(f"{EXPLORER}.querySelector('.mask .why').textContent") == "“Send mask to inpaint” is off: click a word first."
    )
    assert PROMPT in page.js("document.querySelector('.daam-lens-bar select').selectedOptions[0].textContent")
    point(page, "house")


def test_masks_of_the_server_and_inpaint(page: Chromium, live: Live) -> None:
    """A kept word, its mask by a method that only the server has, in "Inpaint upload" pixel by pixel."""
    point(page, "house")
    page.click(*middle(page, "house"))
    page.js(f"{EXPLORER}.querySelector('[data-method=walk]').click()")
    page.until(f"{EXPLORER}.querySelector('[data-method=walk]').getAttribute('aria-pressed') == 'true'")
    before = page.js("document.querySelector('#img_inpaint_mask img').src")
    page.js(f"{EXPLORER}.querySelector('.mask .main').click()")
    arrived = f"i && i.src != {json.dumps(before)} && i.complete && i.naturalWidth"
    page.until(f"(i => {arrived})(document.querySelector('#img_inpaint_mask img'))")
    run = live.server.get("/daam-lens/v1/runs")["runs"][0]["id"]
    expected = live.server.post(f"/daam-lens/v1/runs/{run}/masks", {"words": ["house"], "method": "walk"})["masks"]["house"]
    assert (pixels(page, "#img_inpaint_mask img") == picture(expected)).all()
    assert page.js("document.querySelector('#img_inpaint_mask').offsetParent != null")


def test_a_run_without_us_leaves_nothing_to_send(page: Chromium) -> None:
    page.js("document.querySelector('#tabs button').click()")
    click(page, "[id$=daam_lens_enabled-checkbox] input")
    press(page)
    page.until(f"document.querySelector('{SENDER}')?.offsetParent == null")
    assert page.js("document.querySelector('#daam_lens_report_txt2img').textContent.trim()") == ""


def test_details_and_a_loaded_record(page: Chromium, live: Live, tmp_path: Path) -> None:
    """A record of another machine opens in the tab, with its steps."""
    live.make(lens={"detail": True}, prompt="a blue boat", seed=3)
    record = max((live.server.data / "outputs").rglob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns)
    copy = shutil.copy(record, tmp_path / "elsewhere.safetensors")
    live.make(lens={}, prompt="an old moon", seed=3)
    page.js("daamLens.openTab()")
    page.until("[...document.querySelectorAll('.daam-lens-bar option')].some(one => one.textContent.includes('moon'))")
    assert "moon" not in page.js("document.querySelector('.daam-lens-bar option').textContent"), "the page's own come first"
    document = page.send("DOM.getDocument")["root"]["nodeId"]
    found = page.send("DOM.querySelector", nodeId=document, selector=".daam-lens-bar input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=found, files=[str(copy)])
    page.until(f"{EXPLORER}.querySelector('.prompt')?.textContent.includes('boat')")
    page.js(f"(i => {{ i.value = 2; i.dispatchEvent(new Event('input')) }})({EXPLORER}.querySelector('[name=step]'))")
    page.until(f"{EXPLORER}.querySelector('.time output').textContent == 'step 2 of 2'")
    page.until(f"{EXPLORER}.querySelector('.chip.lit, .chip[aria-pressed=true]') != null")


def test_a_foreign_file_is_one_sentence(page: Chromium, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not a record at all")
    document = page.send("DOM.getDocument")["root"]["nodeId"]
    found = page.send("DOM.querySelector", nodeId=document, selector=".daam-lens-bar input[type=file]")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=found, files=[str(wrong)])
    page.until("document.querySelector('.daam-lens-status').textContent.startsWith('The file')")


def test_a_picture_that_was_not_made_here(page: Chromium, live: Live, tmp_path: Path) -> None:
    """Chosen, described, read: it stands in the tab like a picture of the host's."""
    if live.name != "a1111":
        pytest.skip("its model of the tests is too large to read at the size that it takes by itself")
    file = tmp_path / "photo.png"
    Image.fromarray(np.full((90, 101, 3), 180, np.uint8)).save(file)
    page.js("document.querySelector('.daam-lens-read').open = true")
    document = page.send("DOM.getDocument")["root"]["nodeId"]
    found = page.send("DOM.querySelector", nodeId=document, selector=".daam-lens-form input[type=file]")["nodeId"]
    click(page, ".daam-lens-go button")
    page.until("document.querySelector('.daam-lens-status').textContent == 'Choose a picture first.'")
    page.send("DOM.setFileInputFiles", nodeId=found, files=[str(file)])
    page.until("document.querySelector('.daam-lens-drop img')?.naturalWidth == 101")
    page.js("document.querySelector('.daam-lens-fields textarea').value = 'a red boat'")
    page.js("document.querySelector('.daam-lens-fields input').value = 'tree'")
    click(page, ".daam-lens-go button")
    page.until("document.querySelector('.daam-lens-bar select').selectedOptions[0].textContent.includes('a red boat')")
    page.until(f"{EXPLORER}.textContent.includes('not in the prompt')")
    assert not page.js("document.querySelector('.daam-lens-go button').disabled")


def test_a_pasted_infotext_sets_the_panel(page: Chromium) -> None:
    """What a picture's infotext says of us comes back, and opens the panel."""
    ours = 'DAAM Lens: on, DAAM Lens words: "house, green tree", DAAM Lens tau: 0.3, DAAM Lens masks: True'
    put(page, "#txt2img_prompt textarea", f"{PROMPT}\nSteps: 3, Sampler: Euler, CFG scale: 5, Seed: 9, {ours}")
    page.js("daamLens.openTab()")
    page.js("document.querySelector('#tabs button').click()")
    click(page, "#txt2img_tools #paste")
    page.until("document.querySelector('[id$=daam_lens_words] textarea').value == 'house, green tree'")
    assert page.js("document.querySelector('[id$=daam_lens_enabled-checkbox] input').checked")
    assert page.js("document.querySelector('[id$=daam_lens_tau] input[type=number]').value") == "0.3"
    assert page.js("document.querySelector('[id$=daam_lens_masks] input').checked")
    assert not page.js("document.querySelector('[id$=daam_lens_maps] input').checked")


def test_the_page_complains_about_nothing(page: Chromium) -> None:
    """Hosts ask for scripts of the wide world, and a wrong record is an answer of 422: these are no complaints about us."""
    expected = ("ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "422", "ERR_PROXY", "ERR_CONNECTION")
    assert [e for e in page.errors() if not any(text in e for text in expected)] == []


def test_files_and_record_of_the_page(live: Live) -> None:
    live.make(lens={}, seed=4)
    run = live.server.get("/daam-lens/v1/page/runs")["runs"][0]["id"]
    base = f"/daam-lens/v1/page/runs/{run}"
    body = {"words": [["word:house"], ["word:green", "word:tree"]], "method": "threshold", "tau": 0.5}
    archive = zipfile.ZipFile(io.BytesIO(live.server.raw(f"{base}/files", body)))
    names = [f"{kind}-{word}.png" for word in ("house", "green-tree") for kind in ("overlay", "map", "mask")]
    assert archive.namelist() == names
    mask = np.asarray(Image.open(io.BytesIO(archive.read("mask-green-tree.png"))))
    api = live.server.post(f"/daam-lens/v1/runs/{run}/masks", {"words": ["green tree"], "method": "threshold", "tau": 0.5})
    assert (mask == picture(api["masks"]["green tree"])[..., 0]).all()
    record = live.server.raw(f"{base}/record")
    (live.server.data / "again.safetensors").write_bytes(record)
    assert HeatMaps.load(live.server.data / "again.safetensors").words == PROMPT.split()[:4] + ["a#2", "green", "tree"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/runs/nothing", None, 404),
        ("/runs/RUN/detail/sideways", None, 422),
        ("/runs/RUN/mask", {"words": [[]]}, 422),
        ("/runs/RUN/mask", {"words": [["word:house"]], "settings": {"method": "magic"}}, 422),
        ("/runs/RUN/mask", {"words": [["word:house"]], "settings": {"tau": 9}}, 422),
        ("/runs/RUN/mask", {"words": [["word:" + "house" * 20000]]}, 413),
        ("/runs/RUN/files", {"words": [["word:zebra"]]}, 422),
        ("/runs/RUN/files", {"words": [["negative:house"]]}, 422),
        ("/runs/RUN/files", {"words": [["word:house"]] * 65}, 422),
        ("/records", b"nothing", 415),
        ("/read", {"prompt": PROMPT}, 422),
        ("/read", {"image": 5}, 422),
        ("/read", b"[]", 422),
    ],
)
def test_wrong_calls_of_the_page(live: Live, path: str, body: object, status: int) -> None:
    runs = live.server.get("/daam-lens/v1/page/runs")["runs"]
    if not runs:
        live.make(lens={})
        runs = live.server.get("/daam-lens/v1/page/runs")["runs"]
    code, text = live.server.status("/daam-lens/v1/page" + path.replace("RUN", runs[0]["id"]), body)
    assert code == status, text
    assert str(live.server.data) not in text
