"""A page of a real ComfyUI in headless Chromium, for the scripts that take pictures of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.comfyui.hosts import Server
from tests.comfyui.hosts import find as find_host
from tests.comfyui.page import ComfyPage
from tests.web.chromium import Chromium, find

from .workflow_pictures import example_picture


@contextmanager
def comfyui_page(window: tuple[int, int], example: bool = False) -> Iterator[tuple[ComfyPage, Path]]:
    """A page of `window` pixels and a folder for its pictures, both gone afterwards.

    `example` puts an example picture among the host's input. Where there is no host or no browser, the script ends and says
    where the host was looked for.
    """
    host, chromium = find_host("0.33"), find()
    if isinstance(host, str) or chromium is None:
        sys.exit(host if isinstance(host, str) else "There is no Chromium.")
    with tempfile.TemporaryDirectory() as base:
        server = Server(host, Path(base))
        try:
            if example:
                example_picture(server.base / "input" / "example.png")
            with Chromium(chromium, window, timeout=180) as browser:
                yield ComfyPage(browser, server), Path(base)
        finally:
            server.close()
