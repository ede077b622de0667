"""Lasso, fingers, play, steps that are stored, and what a host's server refines: in a real browser, against the core."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from daam_core import HeatMaps, masks
from daam_core.explorer.selection import choice_mask, read_choice
from daam_core.explorer.standalone import write_explorer
from daam_core.maps.statistics import rank_region

from .chromium import Chromium
from .hands import PAGE, ROOT, drawn, middle, over, ranked, slide, taken_mask
from .samples import heat_maps

pytestmark = pytest.mark.slow


def scores(page: Chromium) -> list[float]:
    """The listed shares in per cent."""
    texts: list[str] = page.js(f"[...{ROOT}.querySelectorAll('.ranks li[data-word] span:last-child')].map(e => e.textContent)")
    return [float(text.split()[0]) for text in texts]


def rest(page: Chromium) -> None:
    """The pointer goes where nothing is, and nothing has the keyboard."""
    page.mouse("Moved", 5, 950)
    page.js(f"{ROOT}.activeElement?.blur()")


def region(points: list[tuple[int, int]], size: tuple[int, int]) -> torch.Tensor:
    """The pixels whose middle lies in a polygon of pixels (y, x), by OpenCV."""
    polygon = np.array([(x + 0.5, y + 0.5) for y, x in points], np.float32)
    inside = [[cv2.pointPolygonTest(polygon, (x + 0.5, y + 0.5), False) >= 0 for x in range(size[1])] for y in range(size[0])]
    return torch.tensor(inside).float()


def png(mask: torch.Tensor) -> str:
    """A mask as a host's server sends it, in base64."""
    return base64.b64encode(cv2.imencode(".png", mask.numpy().astype(np.uint8) * 255)[1].tobytes()).decode("ascii")


def serve(page: Chromium, answers: dict[str, str]) -> None:
    """Loads the page again with a server behind it; `asked` collects what it is asked. A method without an answer fails."""
    page.js(
        f"window.answers = {json.dumps(answers)}; window.asked = [];"
        f"{PAGE}.load({{...{PAGE}.data, refine: {{methods: ['best', 'walk', 'grabcut'], run: async (request) => {{"
        " asked.push(request); const key = request.method + ' ' + request.words.join('+'); const text = answers[key];"
        " if (text === undefined) throw new Error('no ' + key); if (text.startsWith('Sent')) return text;"
        " return {mask: Uint8Array.from(atob(text), c => c.charCodeAt(0))}; }}})"
    )


def test_a_lasso_ranks_the_words_inside_it(page: Chromium, maps: HeatMaps) -> None:
    corners = [(20, 30), (30, 150), (100, 110), (70, 60)]
    page.click(*middle(page, "[data-choice='lasso']"))
    page.drag(*(over(page, y, x, maps.size) for y, x in corners))
    wanted = rank_region(maps, region(corners, maps.size))
    assert ranked(page) == [row.word for row in wanted]
    assert all(abs(a - 100 * row.score) < 1.0 for a, row in zip(scores(page), wanted, strict=True))
    assert len(page.js(f"{ROOT}.querySelector('.marks polygon').getAttribute('points')").split()) == len(corners)
    page.mouse("Moved", *over(page, 5, 5, maps.size))
    assert ranked(page) == [row.word for row in wanted], "a region stays while the pointer goes on"
    page.key("Escape")
    page.click(*over(page, 100, 20, maps.size))
    assert len(page.js(f"{PAGE}.choice().words")) == 1


@pytest.fixture
def screen(page: Chromium) -> Iterator[Chromium]:
    page.touch_screen(True)
    yield page
    page.touch_screen(False)


def test_a_finger_taps_and_drags(screen: Chromium, maps: HeatMaps) -> None:
    page = screen
    page.touch(middle(page, "[data-word='2']"))
    assert page.js(f"{PAGE}.choice().words") == [["word:house"]]
    assert page.js(f"{PAGE}.hovered") is None
    page.touch(middle(page, "[data-word='5']"), middle(page, "[data-word='6']"))
    assert page.js(f"{PAGE}.choice().words") == [["word:house"], ["word:green", "word:tree"]]
    page.touch(over(page, 10, 20, maps.size), over(page, 60, 60, maps.size), over(page, 89, 119, maps.size))
    box = region([(10, 20), (10, 119), (89, 119), (89, 20)], maps.size)
    assert ranked(page) == [row.word for row in rank_region(maps, box)]
    page.js(f"{PAGE}.clear()")
    page.touch(over(page, 40, 100, maps.size))
    at = torch.zeros(maps.size)
    at[40, 100] = 1
    assert page.js(f"{PAGE}.choice().words") == [[f"word:{rank_region(maps, at)[0].word}"]]


def test_play_walks_the_steps_until_it_is_stopped(page: Chromium) -> None:
    page.click(*middle(page, "[data-word='2']"))
    rest(page)
    seen = set()
    page.js(f"{ROOT}.querySelector('.play').click()")
    for _ in range(4):
        step = page.js(f"{PAGE}.model.part?.frames[0] ?? -1")
        page.until(f"({PAGE}.model.part?.frames[0] ?? -1) !== {step}")
        seen.add(drawn(page))
    assert len(seen) >= 3
    page.js(f"{ROOT}.querySelector('.play').click()")
    assert page.js(f"{ROOT}.querySelector('.play').textContent") == "▶"
    step = page.js(f"{PAGE}.model.part.frames[0]")
    page.js("new Promise(done => setTimeout(done, 500))")
    assert page.js(f"{PAGE}.model.part.frames[0]") == step


def test_steps_and_layers_are_stored_with_the_choice(page: Chromium, maps: HeatMaps) -> None:
    """Told to the host, taken up again, and the same mask on the page and in the core."""
    page.js(f"window.told = []; {PAGE}.addEventListener('daam-change', e => told.push(e.detail))")
    page.click(*middle(page, "[data-word='2']"))
    slide(page, "step", "3")
    page.until("told.length > 1")
    choice = page.js("told.at(-1)")
    assert choice["part"] == {"axis": "steps", "frames": [2]}
    of_step = taken_mask(page) > 0
    wanted = choice_mask(maps, read_choice(json.dumps(choice))).numpy()
    assert float((of_step != wanted).mean()) < 0.005, "steps have 255 levels on the page"
    assert float((of_step != maps.mask("house", "threshold").numpy()).mean()) > 0.005
    page.js(f"{PAGE}.load({{...{PAGE}.data, choice: told.at(-1)}})")
    page.until(f"{PAGE}.model?.part?.axis === 'steps'")
    assert page.js(f"{ROOT}.querySelector('.time output').textContent") == "step 3 of 4"
    assert np.array_equal(taken_mask(page) > 0, of_step)
    layers = {**choice, "part": {"axis": "layers", "frames": [1]}}
    page.js(f"{PAGE}.load({{...{PAGE}.data, choice: {json.dumps(layers)}}})")
    page.until(f"{PAGE}.model?.part?.axis === 'layers'")
    assert page.js(f"[...{ROOT}.querySelectorAll('.layer')].map(b => b.getAttribute('aria-pressed'))") == ["false", "true"]
    assert page.js(f"{PAGE}.choice()") == layers
    beyond = {**choice, "part": {"axis": "steps", "frames": [40]}}
    page.js(f"{PAGE}.load({{...{PAGE}.data, choice: {json.dumps(beyond)}}})")
    assert page.js(f"{PAGE}.model.part") is None
    assert "does not fit" in page.js(f"{ROOT}.querySelector('[role=status]').textContent")


def test_the_server_s_mask_is_drawn_cleaned_and_stored(page: Chromium, maps: HeatMaps) -> None:
    both = maps.mask("house", "best") | maps.mask("tree", "best")
    serve(page, {"best word:house": png(maps.mask("house", "best")), "best word:house+word:tree": png(both)})
    page.js(f"{ROOT}.querySelector('[data-method=best]').click()")
    assert page.js(f"{ROOT}.querySelector('[role=status]').textContent") == "Click a word first."
    page.click(*middle(page, "[data-word='2']"))
    page.js(f"{ROOT}.querySelector('[data-method=best]').click()")
    page.until(f"{ROOT}.querySelector('[data-method=best]').getAttribute('aria-pressed') === 'true'")
    assert np.array_equal(taken_mask(page) > 0, maps.mask("house", "best").numpy())
    assert page.js(f"{ROOT}.querySelector('[name=tau]').disabled")
    slide(page, "grow", "4")
    page.js(f"{ROOT}.querySelector('[name=invert]').click()")
    wanted = ~masks.grow(maps.mask("house", "best"), 4)
    assert np.array_equal(taken_mask(page) > 0, wanted.numpy())
    choice = page.js(f"{PAGE}.choice()")
    assert torch.equal(choice_mask(maps, read_choice(json.dumps(choice))), wanted)
    page.click(*middle(page, "[data-word='6']"))
    rest(page)
    page.until("asked.length > 1")
    assert np.array_equal(taken_mask(page) > 0, ~masks.grow(both, 4).numpy())
    assert len(page.js("asked")) == 2, "each mask is asked for once"
    page.js(f"{ROOT}.querySelector('[data-method=best]').click()")
    assert page.js(f"{PAGE}.choice().settings.method") == ""
    assert not page.js(f"{ROOT}.querySelector('[name=tau]').disabled")


def test_a_server_that_cannot_is_a_sentence(page: Chromium) -> None:
    """And one that does something else with the choice, as the WebUI's may, says what."""
    serve(page, {"grabcut word:house": "Sent to inpaint."})
    page.click(*middle(page, "[data-word='2']"))
    for method, says in {"walk": "The server did not do it: no walk word:house", "grabcut": "Sent to inpaint."}.items():
        page.js(f"{ROOT}.querySelector('[data-method={method}]').click()")
        page.until(f"{ROOT}.querySelector('[role=status]').textContent === {json.dumps(says)}")
        assert page.js(f"{PAGE}.choice().settings.method") == ""


def test_a_choice_of_the_page_is_the_core_s_mask(page: Chromium, maps: HeatMaps) -> None:
    """What the page tells its host, read by the core: the same mask, pixel by pixel."""
    changes: list[dict[str, Any]] = [{}, {"compete": True, "grow": 5}, {"tau": 0.62, "invert": True}, {"grow": -2}]
    page.click(*middle(page, "[data-word='2']"))
    page.click(*middle(page, "[data-word='6']"))
    for change in changes:
        page.js(f"{PAGE}.changeMask({{...{PAGE}.settings, {json.dumps(change)[1:-1]}}})")
        wanted = choice_mask(maps, read_choice(json.dumps(page.js(f"{PAGE}.choice()"))))
        assert np.array_equal(taken_mask(page) > 0, wanted.numpy())


def test_a_page_without_a_word_asks_for_none_to_be_clicked(page: Chromium, tmp_path: Path) -> None:
    """A recording of the empty prompt has start, end and padding alone."""
    for words, said in ((["house"], "click a word first"), ([], "the prompt has no word")):
        page.open(write_explorer(heat_maps(words, (128, 192), ((16, 24),)), tmp_path / f"{len(words)}.html"))
        assert said in page.js(f"{ROOT}.querySelector('.panel.mask').textContent")
