"""The rating sheet in a real browser, from keys alone to the downloaded file, and read back."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daam_core.studies.rating_sheet import Check, Item, Sheet, sheet_html
from daam_core.studies.ratings import attentive, read_ratings

from ..web.chromium import Chromium, find

BROWSER = find()
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: looked at CHROMIUM_PATH and for chromium, google-chrome"
)
HOSTILE = "</script><img src=x onerror=window.broken=1>"
WORDS = ["red", "house", HOSTILE, "\u2028", "🦊", "=SUM(A1)"]


def png(grey: int) -> bytes:
    into = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(into, format="png")
    return into.getvalue()


IMAGES = {"plain": png(40), "hot": png(200), "unused": png(90)}
SHEET = Sheet(tuple(Item(f"i{n}", "a ", word, " and more", "NOUN", "plain", "hot") for n, word in enumerate(WORDS)))


def many(count: int) -> Sheet:
    return Sheet(tuple(Item(f"i{n}", "", f"word{n}", "", "NOUN", "plain", "hot") for n in range(count)))


def test_the_order_is_the_seed_s_and_the_sheet_s_name_is_not() -> None:
    sheet = many(60)
    orders = [[entry.id for entry in sheet.order(seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted([*(i.id for i in sheet.items), *(c.id for c in sheet.checks)])
    assert len(sheet.checks) == 5 and {c.asked for c in sheet.checks} <= {1, 2, 3, 4, 5}
    assert all(not isinstance(sheet.order(seed)[0], Check) for seed in range(30))
    assert Sheet(sheet.items[::-1]).id == sheet.id != many(59).id
    assert len(many(1).checks) == 1


def test_a_page_asks_nobody_for_anything_and_holds_no_part_of_speech() -> None:
    text = sheet_html(SHEET, IMAGES, 0)
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")
    assert "NOUN" not in text and HOSTILE not in text
    assert text.count("data:image/png;base64,") == 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    assert BROWSER is not None
    with Chromium(BROWSER) as one:
        yield one


def opened(browser: Chromium, folder: Path, sheet: Sheet = SHEET, seed: int = 5) -> list[Item | Check]:
    page = folder / "sheet.html"
    page.write_text(sheet_html(sheet, IMAGES, seed), encoding="utf-8")
    browser.events.clear()
    browser.send("Page.navigate", url=page.resolve().as_uri())
    browser.until("document.readyState === 'complete' && document.getElementById('rater') !== null")
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    return sheet.order(seed)


def begin(browser: Chromium, rater: str) -> None:
    """As a person without a mouse does: the field has the focus, type a name, press Enter."""
    name(browser, rater)
    browser.until("document.getElementById('start').hidden")


def name(browser: Chromium, rater: str) -> None:
    browser.send("Input.insertText", text=rater)
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.send("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)


def text_of(browser: Chromium, element: str) -> str:
    return str(browser.js(f"document.getElementById('{element}').textContent"))


def downloaded(folder: Path, name: str) -> Path:
    until = time.monotonic() + 20
    while not (folder / name).is_file() and time.monotonic() < until:
        time.sleep(0.05)
    return folder / name


@needs_browser
@pytest.mark.slow
def test_a_whole_session_by_keyboard(browser: Chromium, tmp_path: Path) -> None:
    shown = opened(browser, tmp_path)
    begin(browser, "rater 1")
    given: dict[str, int | str] = {}
    for number, entry in enumerate(shown):
        assert text_of(browser, "count") == f"{number + 1} of {len(shown)}"
        question = text_of(browser, "question")
        if isinstance(entry, Check):
            assert question == f"This one is a check: press {entry.asked}."
            given[entry.id] = entry.asked
        else:
            assert text_of(browser, "prompt") == f"“a {entry.word} and more”"
            assert f"“{entry.word}”" in question
            given[entry.id] = ["a", "p", 1, 2, 4, 5][int(entry.id[1:])]
        browser.key(str(given[entry.id]))
    assert browser.js("document.activeElement.id") == "download"
    # Back to the last one, and another answer.
    browser.key("ArrowLeft")
    last = shown[-1]
    if not isinstance(last, Check):
        given[last.id] = 3
    browser.key(str(given[last.id]))
    browser.key("d")
    answers = read_ratings([downloaded(tmp_path, "ratings-rater-1.csv")], SHEET)
    words = {"a": "abstract", "p": "poor"}
    assert {a.item: a.rating or a.remark for a in answers} == {k: words.get(str(v), v) for k, v in given.items()}
    assert {a.rater for a in answers} == {"rater 1"}
    assert attentive(answers, SHEET) == {"rater 1": (1, 1)}
    assert browser.js("window.broken") is None
    assert browser.errors() == []


@needs_browser
@pytest.mark.slow
def test_a_closed_page_goes_on_where_it_was_for_the_same_rater(browser: Chromium, tmp_path: Path) -> None:
    opened(browser, tmp_path)
    begin(browser, "anna")
    for key in ("4", "x", "9", "2"):  # x and 9 mean nothing
        browser.key(key)
    opened(browser, tmp_path)
    begin(browser, "anna")
    assert text_of(browser, "count").startswith("3 of")
    browser.key("ArrowLeft")
    assert browser.js("document.querySelector('[aria-pressed=true]').dataset.value") == "2"
    opened(browser, tmp_path)
    begin(browser, "ben")
    assert text_of(browser, "count").startswith("1 of")
    assert browser.errors() == []


@needs_browser
@pytest.mark.slow
def test_a_name_that_a_table_could_run_is_not_taken(browser: Chromium, tmp_path: Path) -> None:
    opened(browser, tmp_path)
    name(browser, "=cmd()")
    assert browser.js("document.getElementById('start').hidden") is False
    assert browser.js("document.getElementById('rater').checkValidity()") is False


@needs_browser
@pytest.mark.slow
def test_a_small_window_needs_no_sideways_scrolling(browser: Chromium, tmp_path: Path) -> None:
    browser.resize(360, 640)
    opened(browser, tmp_path, many(3))
    begin(browser, "anna")
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    browser.resize(1280, 900)
