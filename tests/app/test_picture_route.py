"""A picture that is dropped on the app: read over HTTP and in a browser, and what is refused."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import load_tiny, read_picture
from daam_core.lru_cache import LRUCache
from daam_core.maps.heatmaps import HeatMaps
from daam_core.studies.mask_bed_scenes import bed_scene

from ..web.chromium import Chromium
from . import test_in_browser
from .test_app import served
from .test_in_browser import BROWSER, ROOT

pytest.importorskip("gradio", reason='the app needs gradio: pip install "daam-lens[app]"')

from daam_core.app import picture_route, routes
from daam_core.app.page import explorer_frame

page = test_in_browser.page
OWN = {"X-Daam-Lens": "read"}


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_read_and_explored(monkeypatch: pytest.MonkeyPatch) -> None:
    client, kept = served(monkeypatch)
    scene = bed_scene("flat", 160, (120, 150))
    answer = client.post("/read", params={"prompt": scene.caption, "seed": "3"}, content=png(scene.image), headers=OWN)
    assert answer.status_code == 200
    address = answer.json()["explorer"]
    maps = kept.find(address.removeprefix("explorer/"))
    alone = read_picture(load_tiny(), scene.image, scene.caption, seed=3)
    noun = next(iter(scene.masks))
    assert np.array_equal(maps.picture, scene.image)
    torch.testing.assert_close(maps[noun], alone[noun], atol=1e-3, rtol=1e-3)
    assert client.get(f"/{address}").status_code == 200
    assert explorer_frame(address).startswith("<iframe")
    for wrong in (None, "", "explorer/../x", 'explorer/"><script>'):
        assert "iframe" not in explorer_frame(wrong)


@pytest.mark.parametrize(
    ("asked", "content", "headers", "says"),
    [
        ({"prompt": "a house"}, png(np.zeros((9, 9, 3), np.uint8)), {}, "own page"),
        ({"prompt": " "}, png(np.zeros((9, 9, 3), np.uint8)), OWN, "empty"),
        ({}, png(np.zeros((9, 9, 3), np.uint8)), OWN, "empty"),
        ({"prompt": "a house", "seed": "-1"}, b"", OWN, "seed is a whole number"),
        ({"prompt": "a house"}, b"nothing", OWN, "no picture that can be read"),
        ({"prompt": "a house"}, b"x" * (picture_route.LARGEST_FILE + 1), OWN, "at most 32 MB"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    asked: dict[str, str], content: bytes, headers: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = served(monkeypatch)
    answer = client.post("/read", params=asked, content=content, headers=headers)
    assert answer.status_code == 400 and says in answer.json()["error"]


def test_what_was_not_foreseen_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page said that the picture could not be sent, and asked whether the app was running."""
    client, kept = served(monkeypatch)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(picture_route, "read_picture", fails)
    scene = bed_scene("flat", 160, (120, 150))
    answer = client.post("/read", params={"prompt": "a house"}, content=png(scene.image), headers=OWN)
    assert answer.status_code == 500 and "An error that was not foreseen (RuntimeError" in answer.json()["error"]
    assert "mat1" not in answer.text
    monkeypatch.setattr(routes, "united_pixels", fails)
    name = kept.keep(read_picture(load_tiny(), scene.image, scene.caption, seed=3))
    answer = client.post(f"/explorer/{name}/mask", content="{}")
    assert answer.status_code == 500 and "An error that was not foreseen (RuntimeError" in answer.json()["error"]


def test_a_large_picture_is_shown_smaller_and_waits_for_its_turn() -> None:
    picture = np.zeros((300, 700, 3), np.uint8)
    assert picture_route.shrunk(picture) is picture
    assert picture_route.shrunk(picture, 21_000).shape == (94, 221, 3)
    turn = threading.Lock()
    kept = LRUCache[HeatMaps](2, 2**24, lambda maps: maps.nbytes)
    assert picture_route.picture_routes(None, kept, turn).routes and not turn.locked()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_dropped_picture_is_explored(page: Chromium) -> None:
    page.until(f"{ROOT}?.querySelector('.root') != null")
    first = page.js("document.querySelector('iframe.daam').src")
    page.js(
        "(() => { const c = document.createElement('canvas'); c.width = 120; c.height = 90; const d = c.getContext('2d');"
        " d.fillStyle = '#eee'; d.fillRect(0, 0, 120, 90); d.fillStyle = '#c22'; d.fillRect(30, 30, 50, 40);"
        " c.toBlob(blob => { const t = new DataTransfer(); t.items.add(new File([blob], 'house.png', {type: 'image/png'}));"
        " document.querySelector('#daam_drop span').dispatchEvent(new DragEvent('drop',"
        " {dataTransfer: t, bubbles: true, cancelable: true})); }); })()"
    )
    page.until(f"document.querySelector('iframe.daam')?.src != '{first}' && {ROOT}?.querySelector('.root') != null")
    assert "explorer/" in page.js("document.querySelector('iframe.daam').src")
