"""What all routes do alike: find a run, encode a picture, tell a client what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from daam_core.errors import DaamLensError
from daam_core.files import png_bytes

from .recording_store import RECORDINGS, StoredRecording

T = TypeVar("T")


def find_run(run: str) -> StoredRecording:
    """Raises 404 where it is not (or no more) there."""
    found = RECORDINGS.find(run)
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
