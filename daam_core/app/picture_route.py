"""`POST /read`: a picture that somebody dropped on the page is read, and its explorer kept like that of a painted one."""

from __future__ import annotations

import asyncio
import io
import threading
from typing import Any

import cv2
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from ..diffusers.reading import read_picture
from ..errors import BadArgument, quoted
from ..lru_cache import LRUCache
from ..maps.heatmaps import HeatMaps
from ..picture_files import load_picture
from ..types import Image
from ..validate import checked_prompt
from .routes import complaint, read_body

LARGEST_FILE = 32 * 2**20
"""Bytes of a picture file."""
MOST_PIXELS = 2**22
"""Pixels of a picture in the explorer; larger ones are shown smaller."""
HEADER = "x-daam-lens"
"""No page of another server can send it: its browser would have to ask first, and is refused."""


def picture_routes(pipe: Any, kept: LRUCache[HeatMaps], turn: threading.Lock) -> APIRouter:
    """`POST /read?prompt=…&seed=…` with a picture file as the body gives `{"explorer": "explorer/NAME"}`.

    Args:
        pipe: the pipeline that reads.
        kept: where the maps go.
        turn: held while the pipeline is in use; one picture is painted or read at a time.
    """
    router = APIRouter()

    async def read(request: Request) -> Response:
        try:
            if HEADER not in request.headers:
                raise BadArgument("Pictures are read for the app's own page.")
            prompt = checked_prompt(request.query_params.get("prompt", ""))
            seed = _seed(request.query_params.get("seed", "0"))
            body = await read_body(request, LARGEST_FILE, f"A picture file has at most {LARGEST_FILE // 2**20} MB.")
            maps = await asyncio.to_thread(_read, pipe, body, prompt, seed, turn)
        except ClientDisconnect:  # nobody is there to be told
            raise
        except Exception as error:
            return complaint(error)
        return JSONResponse({"explorer": f"explorer/{kept.keep(maps)}"})

    router.add_api_route("/read", read, methods=["POST"], include_in_schema=False)
    return router


def shrunk(picture: Image, most: int = MOST_PIXELS) -> Image:
    """The picture with at most `most` pixels, its shape kept."""
    height, width = picture.shape[:2]
    if height * width <= most:
        return picture
    scale = (most / (height * width)) ** 0.5
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(picture.dtype)


def _read(pipe: Any, body: bytes, prompt: str, seed: int, turn: threading.Lock) -> HeatMaps:
    with turn:  # for decoding, too: several pictures of the most pixels at once would fill the memory
        picture = shrunk(load_picture(io.BytesIO(body)))
        return read_picture(pipe, picture, prompt, seed=seed, keep=("steps", "layers"))


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise BadArgument(f"The seed is a whole number, not {quoted(text, 20)}.")
    return int(text)
