"""What an Explorer's page asks for: heat maps, picture, steps and layers, masks. Only of what `explorer_store` keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from ..daam_core.errors import BadArgument, DaamLensError, NothingRecorded
from ..daam_core.explorer.selection import server_methods
from ..daam_core.files import png_bytes
from .explorer_choice import detail_of, pixels_of
from .explorer_store import EXPLORED
from .server import server

logger = logging.getLogger("daam_lens")
PREFIX = "/daam-lens/explorer/{run}/{picture:\\d{1,6}}"
MOST_BODY = 256 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve() -> None:
    """Adds the routes to ComfyUI's server, before it starts."""
    own = server()
    if own is None:
        return
    own.routes.get(PREFIX)(_answering(_page))
    own.routes.get(PREFIX + "/picture")(_answering(_picture))
    own.routes.get(PREFIX + "/detail/{axis}")(_answering(_detail))
    own.routes.post(PREFIX + "/mask")(_answering(_mask))


def _answering(work: Callable[[str, int, Any], web.Response]) -> Handler:
    """`work(run, picture, text or axis)` on a thread of its own; what went wrong becomes a sentence."""

    async def handler(request: web.Request) -> web.StreamResponse:
        place = request.match_info
        try:
            asked = await _body(request) if request.method == "POST" else place.get("axis")
            return await asyncio.to_thread(work, place["run"], int(place["picture"]), asked)
        except DaamLensError as error:
            return web.json_response({"error": str(error)}, status=404 if isinstance(error, NothingRecorded) else 400)
        except Exception:
            logger.exception("An explorer's question could not be answered.")
            return web.json_response({"error": "Something went wrong here; ComfyUI's log says what."}, status=500)

    return handler


async def _body(request: web.Request) -> str:
    """The text of a request; one that is longer than any choice is not read on. Raises BadArgument."""
    read = b""
    try:
        while len(read) <= MOST_BODY and (more := await request.content.read(MOST_BODY + 1 - len(read))):
            read += more
    except (web.RequestPayloadError, OSError):  # compressed as it does not say, or the page was closed meanwhile
        raise BadArgument("The choice did not arrive whole. Send it again, as plain text.") from None
    if len(read) > MOST_BODY:
        raise BadArgument(f"A choice of more than {MOST_BODY // 1024} kB is not read.")
    return read.decode("utf-8", "replace")


def _page(run: str, picture: int, _: None) -> web.Response:
    maps = EXPLORED.maps(run, picture)
    told = {"methods": server_methods(maps), "pictured": maps.picture is not None}
    return web.json_response({**EXPLORED.page(run, picture).as_json(), **told})


def _picture(run: str, picture: int, _: None) -> web.Response:
    found = EXPLORED.maps(run, picture).picture
    if found is None:
        raise NothingRecorded("The picture is not known: connect it to Word Heat Maps or to Attention Explorer.")
    return _png(found)


def _detail(run: str, picture: int, axis: str) -> web.Response:
    if axis not in ("steps", "layers", "frames"):
        raise BadArgument("There are steps, layers and frames.")
    return web.json_response(detail_of(EXPLORED.maps(run, picture), axis).as_json())  # type: ignore[arg-type]


def _mask(run: str, picture: int, body: str) -> web.Response:
    """The union of the words' masks by the asked method, before clean-up (the page does that itself, live)."""
    return _png(pixels_of(EXPLORED.maps(run, picture), body))


def _png(pixels: NDArray[np.uint8]) -> web.Response:
    return web.Response(body=png_bytes(pixels, level=1), content_type="image/png")
