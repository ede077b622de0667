"""What a person does with the page's mouse and what they then see, for tests of the explorer."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from .chromium import Chromium

ROOT = "document.querySelector('daam-explorer').shadowRoot"
PAGE = "document.querySelector('daam-explorer')"


def box(page: Chromium, selector: str) -> list[float]:
    """Left, top, width and height on the screen."""
    found: list[float] = page.js(
        f"(() => {{ const r = {ROOT}.querySelector(`{selector}`).getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    return found


def slide(page: Chromium, name: str, value: str) -> None:
    page.js(
        f"(() => {{ const s = {ROOT}.querySelector('[name={name}]'); s.value = '{value}';"
        " s.dispatchEvent(new Event('input')); })()"
    )


def middle(page: Chromium, selector: str) -> tuple[float, float]:
    x, y, w, h = box(page, selector)
    return x + w / 2, y + h / 2


def over(page: Chromium, y: int, x: int, size: tuple[int, int]) -> tuple[float, float]:
    """Screen place of the middle of a pixel of the picture."""
    left, top, w, h = box(page, ".frame")
    return left + (x + 0.5) / size[1] * w, top + (y + 0.5) / size[0] * h


def ranked(page: Chromium) -> list[str]:
    found: list[str] = page.js(f"[...{ROOT}.querySelectorAll('.ranks li[data-word]')].map(li => li.dataset.word)")
    return found


def drawn(page: Chromium) -> int:
    """A sum over the overlay's pixels: 0 when nothing is drawn."""
    total: int = page.js(
        f"(() => {{ const c = {ROOT}.querySelector('.frame .overlay'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let s = 0; for (const v of d) s = (s * 31 + v) % 1000003; return s; })()"
    )
    return total


def taken_mask(page: Chromium) -> np.ndarray[Any, Any]:
    """The PNG that the button hands out, uint8 `[H, W]`."""
    text = page.js(
        "new Promise(done => {"
        f"{PAGE}.addEventListener('daam-mask', e => {{ e.preventDefault(); const r = new FileReader();"
        " r.onload = () => done(r.result.split(',')[1]); r.readAsDataURL(e.detail.png); }, {once: true});"
        f"{ROOT}.querySelector('button.main').click(); }})"
    )
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    return picture
