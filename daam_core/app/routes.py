"""What the app serves beside the form: the explorer of one picture, and the masks that only a server can make."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from ..errors import BadArgument, DaamLensError, NothingRecorded, out_of_memory, reason_of
from ..explorer.selection import LONGEST, united_pixels
from ..explorer.standalone import explorer_html
from ..files import png_bytes
from ..lru_cache import LRUCache
from ..maps.heatmaps import HeatMaps

LARGEST_BODY = 4 * LONGEST
"""Bytes of a request: a choice of the most characters that are read, each of four bytes."""
_LOG = logging.getLogger("daam_lens")
_LOOK_EVERY = 0.25
"""Seconds between two looks whether the page still waits for its mask."""


def routes(kept: LRUCache[HeatMaps]) -> APIRouter:
    """`GET /explorer/NAME` is the page, `POST /explorer/NAME/mask` the union of the chosen words' masks as a grey PNG."""
    router = APIRouter()

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        return await _answer(request, lambda _: _page(_find(kept, name), name))

    async def mask(request: Request) -> Response:
        try:
            # The name first: whoever does not know one gets nothing read.
            maps = _find(kept, request.path_params["name"])
            body = await read_body(request, LARGEST_BODY)
        except DaamLensError as error:
            return complaint(error)
        return await _answer(request, lambda stopped: _mask(maps, body, stopped))

    router.add_api_route("/explorer/{name}", page, methods=["GET"], include_in_schema=False)
    router.add_api_route("/explorer/{name}/mask", mask, methods=["POST"], include_in_schema=False)
    return router


async def read_body(request: Request, most: int, complaint: str = "") -> bytes:
    """The body of a request of at most `most` bytes; no more than that is ever held.

    Raises:
        BadArgument: it is longer, by its header or in truth; `complaint` is the sentence.
    """
    too_long = BadArgument(complaint or f"A choice of words has at most {most} bytes. Choose again on the page.")
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told[:20]) > most:
        raise too_long
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_long
        parts.append(part)
    return b"".join(parts)


async def _answer(request: Request, work: Callable[[Callable[[], bool]], Response]) -> Response:
    """What `work(stopped)` gives, made in a thread; `stopped` says whether nobody waits for it any more."""
    gone = threading.Event()
    task: asyncio.Task[Response] = asyncio.create_task(asyncio.to_thread(work, gone.is_set))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_EVERY)
            if not task.done() and await request.is_disconnected():
                gone.set()
        return task.result()
    except Exception as error:
        return complaint(error)
    finally:
        gone.set()


def complaint(error: Exception) -> Response:
    """An error as a sentence: 404 for what is not there any more, 400 for what was asked, 500 for what was not foreseen."""
    if isinstance(error, DaamLensError):
        return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, NothingRecorded) else 400)
    return JSONResponse({"error": unforeseen(error)}, status_code=500)


def unforeseen(error: Exception) -> str:
    """The sentence for an error of a library or of ours; the log has all of it."""
    if not out_of_memory(error):
        _LOG.error("DAAM Lens: an error in the app.", exc_info=error)
    reason = reason_of(error)
    return f"{reason[:1].upper()}{reason[1:]}."


def _find(kept: LRUCache[HeatMaps], name: Any) -> HeatMaps:
    maps = kept.find(name)
    if maps is None:
        raise NothingRecorded("This picture is not here any more; make it again with the same seed.")
    return maps


def _page(maps: HeatMaps, name: str) -> Response:
    return HTMLResponse(explorer_html(maps, masks_from=f"{name}/mask"))


def _mask(maps: HeatMaps, body: bytes, stopped: Callable[[], bool]) -> Response:
    pixels = united_pixels(maps, body.decode("utf-8", "replace"), stopped)
    return Response(png_bytes(pixels, level=1), media_type="image/png")
