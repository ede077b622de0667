"""The tab before anything was recorded says where to tick, in the words of the host that it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web import chromium
from tests.web.chromium import Chromium

from .hosts import ROOT

pytestmark = pytest.mark.slow
PAGE = """<!doctype html><meta charset="utf-8"><div id="daam_lens_explorer"></div>{more}
<script>
window.fetch = async () => new Response('{{"runs": []}}');
const gradioApp = () => document;
const onUiLoaded = (start) => start();
</script><script src="{script}"></script>"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "Tick “DAAM Lens” in txt2img or img2img"),
        ("<button id='control_generate'></button>", "SD.Next leaves it out of the tab Control, unless it is on the list"),
    ],
    ids=["others", "sdnext"],
)
def test_where_to_tick(tmp_path: Path, more: str, said: str) -> None:
    path = chromium.find()
    if path is None:
        pytest.skip(f"no browser: CHROMIUM_PATH is not set, and none of {', '.join(chromium.NAMES)} is on PATH")
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(more=more, script=(ROOT / "javascript" / "daam_lens.js").as_uri()), encoding="utf-8")
    with Chromium(path, (900, 600)) as browser:
        browser.send("Page.navigate", url=page.as_uri())
        browser.until("(document.querySelector('.daam-lens-status')?.textContent ?? '') != ''")
        assert said in browser.js("document.querySelector('.daam-lens-status').textContent")
        browser.screenshot(tmp_path / "tab.png")
        assert not browser.errors()
