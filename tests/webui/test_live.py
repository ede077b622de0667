"""Live heat in a running WebUI: the page's previews have it, and the picture, its infotext and the host are what they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from .hosts import picture
from .running import Live, Result, whole

pytestmark = [pytest.mark.host, pytest.mark.slow]
CHEAP = {"a1111": "Approx cheap", "neo": "RGB"}
"""A host's method for previews that needs no model of its own."""


@contextmanager
def previews(live: Live, **more: Any) -> Iterator[None]:
    """The host shows a preview of every step."""
    wanted = {
        "live_previews_enable": True, "show_progress_every_n_steps": 1,
        "show_progress_type": CHEAP.get(live.name, "Approx cheap"), "live_previews_image_format": "png", **more,
    }  # fmt: skip
    before = live.server.get("/sdapi/v1/options")
    live.server.post("/sdapi/v1/options", wanted)
    try:
        yield
    finally:
        live.server.post("/sdapi/v1/options", {name: before[name] for name in wanted})


def watched(live: Live, lens: dict[str, Any] | None, **body: Any) -> tuple[Result, list[tuple[float, NDArray[np.uint8]]]]:
    """A run, and the previews that a page would see meanwhile, each with the second at which it was there."""
    found: list[tuple[float, NDArray[np.uint8]]] = []
    last, done = "", threading.Event()

    def look() -> None:
        nonlocal last
        while not done.is_set():
            shown = live.server.get("/sdapi/v1/progress")["current_image"]
            if shown and shown != last:
                last = shown
                found.append((time.monotonic(), picture(shown)))
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        return live.make(lens=lens, **body), found
    finally:
        done.set()
        thread.join()


def long(live: Live) -> dict[str, Any]:
    return {"steps": 60 if live.name == "a1111" else 20, "prompt": "a red house and a green tree"}


def test_the_previews_have_the_word_s_heat_and_nothing_else_changes(live: Live) -> None:
    with previews(live):
        bare, plain = watched(live, None, **long(live))
        seen, drawn = watched(live, {"live_word": "house"}, **long(live))
        again = live.make(lens={"live_word": "house"}, **long(live))  # nobody looks
    small = plain[0][1].shape
    assert (bare.images[0] == seen.images[0]).all() and (again.images[0] == bare.images[0]).all()
    assert seen.infotexts == bare.infotexts and seen.hooks == 0 and not seen.note
    assert "live" not in seen.info["infotexts"][0]
    whole(seen.maps[0])
    heated = [(at, image) for at, image in drawn if image.shape[1] == 512]
    assert len(heated) >= 2 and all(image.shape == small for _, image in drawn if image.shape[1] != 512)
    assert all(later - earlier > 0.9 for (earlier, _), (later, _) in zip(heated, heated[1:], strict=False))
    assert heated[0][1].shape[0] > 512, "the word stands below"
    first = next(i for i, (_, image) in enumerate(drawn) if image.shape[1] == 512)
    assert all(image.shape[1] == 512 for _, image in drawn[first:]), "a preview came without heat"
    assert float(np.abs(heated[-1][1][:512].astype(float) - heated[-1][1][:512].mean((0, 1))).max()) > 20


def test_a_batch_and_a_second_pass(live: Live) -> None:
    from .test_modes import hires

    with previews(live):
        more = hires(live) | {"steps": long(live)["steps"], "hr_second_pass_steps": long(live)["steps"]}
        for body in ({"batch_size": 2, **long(live)}, more):
            bare = live.make(lens=None, **body)
            seen, drawn = watched(live, {"live_word": "tree"}, **body)
            assert all((a == b).all() for a, b in zip(bare.images, seen.images, strict=False)) and seen.hooks == 0
            assert any(image.shape[1] == 512 for _, image in drawn) and not seen.note, seen.note


@pytest.mark.parametrize(
    ("word", "shows", "said"),
    [("zebra", True, "No live heat: 'zebra' is not in the prompt"), ("house", False, "shows no preview")],
)
def test_why_there_is_no_heat_stands_below_the_picture(live: Live, word: str, shows: bool, said: str) -> None:
    with previews(live, live_previews_enable=shows):
        bare, seen = live.make(), live.make(lens={"live_word": word})
    assert (bare.images[0] == seen.images[0]).all() and said in seen.note and seen.maps and seen.hooks == 0
