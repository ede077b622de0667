"""The app as a newcomer meets it: a prompt is painted, a word pointed at, its mask made; what is wrong is a sentence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from daam_core import load_tiny

from ..web.chromium import Chromium, find

pytest.importorskip("gradio", reason='the app needs gradio: pip install "daam-lens[app]"')
uvicorn = pytest.importorskip("uvicorn", reason='the app needs uvicorn: pip install "daam-lens[app]"')

from daam_core.app.server import build  # noqa: E402

BROWSER = find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome"),
]
EXPLORER = "document.querySelector('iframe.daam')?.contentDocument?.querySelector('daam-explorer')"
ROOT = f"{EXPLORER}?.shadowRoot"


@pytest.fixture
def page() -> Iterator[Chromium]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build(load_tiny(), "tiny"), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert BROWSER is not None
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.05)
        with Chromium(BROWSER, (1400, 900)) as browser:
            browser.resize(1400, 900)
            browser.send("Page.navigate", url=f"http://127.0.0.1:{port}")
            # Its parts arrive one by one, and none listens before the last is there.
            browser.until("document.body.innerText.includes('house, tree, sun')")
            browser.until("!document.body.innerText.includes('Loading...')")
            browser.until("[...document.querySelectorAll('button')].some(b => b.textContent.trim() === 'Paint')")
            yield browser
    finally:
        server.should_exit = True
        thread.join()


def press(page: Chromium, text: str) -> None:
    page.js(f"[...document.querySelectorAll('button')].find(b => b.textContent.trim() === '{text}').click()")


def write(page: Chromium, selector: str, value: str) -> None:
    page.js(
        f"(() => {{ const box = document.querySelector(`{selector}`); box.value = '{value}';"
        " for (const kind of ['input', 'change']) box.dispatchEvent(new Event(kind, {bubbles: true})); })()"
    )


def place(page: Chromium, selector: str) -> tuple[float, float]:
    """Where a part of the explorer is on the screen."""
    x, y = page.js(
        f"(() => {{ const f = document.querySelector('iframe.daam').getBoundingClientRect();"
        f" const r = {ROOT}.querySelector(`{selector}`).getBoundingClientRect();"
        " return [f.x + r.x + r.width / 2, f.y + r.y + r.height / 2]; })()"
    )
    return float(x), float(y)


def test_a_newcomer_paints_explores_and_takes_a_mask(page: Chromium) -> None:
    assert "house, tree, sun" in page.js("document.body.innerText"), "what the model inside can draw"
    page.until(f"{ROOT}?.querySelector('.root') != null")  # it opens with a picture of its own
    first = page.js("document.querySelector('iframe.daam').src")
    assert page.js(f"[...{ROOT}.querySelectorAll('.chip.word:not(.plain)')].map(c => c.textContent)") == [
        "red", "house", "green", "tree",
    ]  # fmt: skip
    write(page, "textarea", "")
    press(page, "Paint")
    page.until("document.querySelector('.toast-wrap')?.textContent.includes('The prompt is empty')")
    press(page, "a purple fish and a pink heart")
    page.until("document.querySelector('textarea').value === 'a purple fish and a pink heart'")
    press(page, "Paint")
    page.until(f"document.querySelector('iframe.daam') != null && document.querySelector('iframe.daam').src !== '{first}'")
    page.until(f"{ROOT}?.querySelector('.root') != null")
    page.until(f"{EXPLORER}?.clientHeight > 500")
    words = f"[...({ROOT}?.querySelectorAll('.chip.word:not(.plain)') ?? [])].map(c => c.textContent).join()"
    page.until(f"{words} === 'purple,fish,pink,heart'")
    page.mouse("Moved", *place(page, "[data-word='2']"))
    page.until(f"{EXPLORER}.hovered?.join() === '2'")
    page.click(*place(page, "[data-word='2']"))
    page.click(*place(page, "[data-method='best']"))
    page.until(f"{ROOT}.querySelector('.area').textContent.endsWith('of the picture')")
    share = float(page.js(f"{ROOT}.querySelector('.area').textContent").split()[0])
    assert 2 < share < 60
