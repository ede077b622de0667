"""What all routes do alike: find a run, encode a picture, tell a client what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from numpy.typing import NDArray

from daam_core.errors import DaamLensError
from daam_core.files import png_bytes

from .recording_store import RECORDINGS, StoredRecording

T = TypeVar("T")
MOST_PICKS = 64
"""Words that one request may ask for: each costs a mask or two pictures."""
LARGEST_BODY = 64 * 1024
"""Bytes of a request that chooses words."""


class BoundedRoute(APIRoute):
    """A route whose requests are refused by their size before they are read; one that streams bounds itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if request.method == "POST" and self.body_field is not None:
                size = request.headers.get("content-length", "")
                if not size.isdecimal():
                    raise HTTPException(411, "Say how long the request is (Content-Length).")
                if len(size) > 12 or int(size) > LARGEST_BODY:
                    raise HTTPException(413, f"A choice of words has at most {LARGEST_BODY // 1024} kB.")
            return await handler(request)

        return bounded


def find_run(run: str, user: str | None = None) -> StoredRecording:
    """A run of a user, or of anybody. Raises 404 where it is not (or no more) there."""
    found = RECORDINGS.find(run, user)
    if found is None:
        raise HTTPException(404, "There is no such run, or it was dropped for newer ones; GET /daam-lens/v1/runs lists them.")
    return found


def or_422(make: Callable[..., T], *args: Any) -> T:
    """`make(*args)`; what a client got wrong is its own fault: 422 with the sentence."""
    try:
        return make(*args)
    except DaamLensError as error:
        raise HTTPException(422, str(error)) from error


def png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 `[H, W]` or `[H, W, 3]` as a PNG file."""
    return png_bytes(pixels, level=3)
