"""What the page says in words: how to go on from the file, what numbers are of, and which words are none of the prompt's."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from daam_core import HeatMaps
from daam_core.cli.parser import build_parser
from daam_core.explorer.standalone import write_explorer

from .chromium import Chromium
from .hands import ROOT, box, middle
from .samples import heat_maps

pytestmark = pytest.mark.slow
_TYPED = f"{ROOT}.querySelector('.typed code').textContent"


def _turn(page: Chromium, view: str) -> None:
    page.js(f"[...{ROOT}.querySelectorAll('[aria-label=\"View\"] button')].find(b => b.textContent === '{view}').click()")


def test_the_command_on_the_page_makes_the_masks_of_the_chosen_words(browser: Chromium, maps: HeatMaps, tmp_path: Path) -> None:
    """What stands there is what a shell and then the command line read: the record's name and the same words."""
    browser.resize(1280, 960)
    browser.open(write_explorer(maps, tmp_path / "explorer.html", "record.safetensors"))
    browser.click(*middle(browser, "[data-word='2']"))
    browser.drag(middle(browser, "[data-word='5']"), middle(browser, "[data-word='6']"))
    program, *given = shlex.split(browser.js(_TYPED))
    read = build_parser(given).parse_args(given)
    assert [program, given[0], read.record] == ["daam-lens", "mask", "record.safetensors"]
    assert read.words == ["house", "green tree"]


def test_a_word_or_a_file_s_name_cannot_break_out_of_the_command(browser: Chromium, tmp_path: Path) -> None:
    """The name stood there as it is: `my record.safetensors` were two arguments, and `x; y.safetensors` two commands."""
    odd, name = ['$(x)"', "`y`", "z\\"], "-a; b `c` $(d) <e>.safetensors"
    browser.open(write_explorer(heat_maps(odd, (64, 64), ((8, 8),)), tmp_path / "explorer.html", name))
    for i in range(len(odd)):
        browser.click(*middle(browser, f"[data-word='{i}']"))
    typed = browser.js(_TYPED).replace("daam-lens mask", r"printf '%s\n'")
    read = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, check=True).stdout
    assert read.splitlines() == [f"./{name}", "--word", odd[0], "--word", odd[1], "--word", odd[2]]


def test_a_page_without_a_record_speaks_of_none(page: Chromium) -> None:
    assert page.js(f"{ROOT}.querySelector('.typed')") is None
    text = page.js(f"{ROOT}.querySelector('.mask').innerText")
    assert "server" not in text and "record" not in text


def test_the_sheet_of_words_says_its_scale(page: Chromium) -> None:
    _turn(page, "Words")
    assert "scale of its own" in page.js(f"{ROOT}.querySelector('.sheets .said').textContent")


def test_words_that_are_none_of_the_prompt_s_are_named_plainly(browser: Chromium, maps: HeatMaps, tmp_path: Path) -> None:
    both = HeatMaps({**maps.sides, "negative": replace(maps.sides["prompt"])}, maps.size, maps.picture)
    browser.open(write_explorer(both, tmp_path / "explorer.html"))
    tags = browser.js(f"[...{ROOT}.querySelectorAll('.tag')].map(t => t.textContent)")
    assert tags == ["Negative prompt", "Start, end, padding"]


def test_two_words_can_be_compared_on_a_phone(page: Chromium) -> None:
    page.resize(390, 800)
    for word in (2, 6):
        page.js(f"{ROOT}.querySelector('[data-word=\"{word}\"]').focus()")
        page.key("Enter")
    _turn(page, "Compare")
    left, top, width, height = box(page, ".pair figure:first-child")
    assert width > 0.4 * 390
    number = box(page, ".pair .iou")
    assert number[1] >= top + height and number[0] >= left, "the number stands below the pictures"


def test_nothing_stands_outside_its_panel_on_the_narrowest_phone(page: Chromium) -> None:
    """Steps and layers are there, too; an app's frame leaves the page as little as this."""
    page.resize(320, 800)
    outside = page.js(
        f"[...{ROOT}.querySelectorAll('.panel *')].filter(e => e.offsetParent && e.getBoundingClientRect().right >"
        " e.closest('.panel').getBoundingClientRect().right).map(e => e.className + ' ' + e.textContent)"
    )
    assert outside == []
    assert page.js("document.documentElement.scrollWidth") == 320
