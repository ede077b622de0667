"""What the app serves beside the form: the explorer of one picture, and the masks that only a server can make."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image

from ..errors import DaamLensError, NothingRecorded
from ..explorer.selection import united_pixels
from ..explorer.standalone import explorer_html
from .shelf import Shelf


def routes(shelf: Shelf) -> APIRouter:
    """`GET /explorer/NAME` is the page, `POST /explorer/NAME/mask` the union of the chosen words' masks as a grey PNG."""
    router = APIRouter()

    async def page(request: Request) -> Response:
        return await _answer(_page, shelf, request.path_params["name"])

    async def mask(request: Request) -> Response:
        body = await request.body()
        return await _answer(_mask, shelf, request.path_params["name"], body)

    router.add_api_route("/explorer/{name}", page, methods=["GET"], include_in_schema=False)
    router.add_api_route("/explorer/{name}/mask", mask, methods=["POST"], include_in_schema=False)
    return router


async def _answer(work: Callable[..., Response], *args: Any) -> Response:
    try:
        return await asyncio.to_thread(work, *args)
    except DaamLensError as error:
        return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, NothingRecorded) else 400)


def _page(shelf: Shelf, name: str) -> Response:
    return HTMLResponse(explorer_html(shelf.find(name), masks_from=f"{name}/mask"))


def _mask(shelf: Shelf, name: str, body: bytes) -> Response:
    pixels = united_pixels(shelf.find(name), body.decode("utf-8", "replace"))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return Response(file.getvalue(), media_type="image/png")
