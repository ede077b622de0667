"""The route that reads a picture: its request is a picture, so it is larger than others and bounded by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from daam_core.errors import BadArgument, quoted

from .api_answers import concepts_of_run
from .http import or_422
from .read_picture import Reading, picture_of, read_picture

LARGEST_PICTURE = 64 * 2**20
"""Bytes of a request with a picture."""
_TEXTS, _NUMBERS = ("prompt", "concepts", "template"), ("samples", "seed", "megapixels")


def add_read_route(router: APIRouter, who: Callable[..., str | None]) -> None:
    """`POST /read` of a router, and `GET /read` for how far it is; `who` reads is a dependency of the first."""

    @router.post("/read", summary="Read a picture that was not made here: JSON with image (base64) and prompt or concepts")
    async def read(request: Request, user: str | None = Depends(who)) -> dict[str, Any]:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            # A page of another site may send plain text without asking, but nothing of this type.
            raise HTTPException(415, "Send the picture as application/json.")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_PICTURE:
                raise HTTPException(413, f"A request with a picture has at most {LARGEST_PICTURE // 2**20} MB.")
        return await run_in_threadpool(or_422, _answer, bytes(body), user or "")

    @router.get("/read", summary="How many levels of noise the picture that is being read was shown at")
    def progress() -> dict[str, int]:
        from .hosts.reading import progress

        done, levels = progress()
        return {"done": done, "of": levels}


def _answer(body: bytes, user: str) -> dict[str, Any]:
    run, notes = read_picture(reading_of(body), user)
    return {
        "id": run.id, "words": list(run.maps.words), "content_words": list(run.maps.content_words), "notes": notes,
        "concepts": concepts_of_run(run.maps, run.maps.concepts),
    }  # fmt: skip


def reading_of(body: bytes) -> Reading:
    """What a request asks for. Raises BadArgument for what is no such request."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise BadArgument("The request is no JSON.") from None
    known = ("image", *_TEXTS, *_NUMBERS, "noise", "detail")
    if not isinstance(asked, dict) or "image" not in asked:
        raise BadArgument(f"The request names an image, and may name {', '.join(known[1:])}.")
    if unknown := sorted(set(asked) - set(known)):
        raise BadArgument(f"There is no {quoted(unknown[0], 60)} in a request to read a picture; there are {', '.join(known)}.")
    values = {name: value for name, value in asked.items() if name != "image"}
    for name, value in values.items():
        if name in _TEXTS and not isinstance(value, str):
            raise BadArgument(f"{name} is a text, not {quoted(value, 60)}.")
        if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise BadArgument(f"{name} is a number, not {quoted(value, 60)}.")
        if name in ("seed", "samples") and not isinstance(value, int):
            raise BadArgument(f"{name} is a whole number, not {quoted(value, 60)}.")
    if not isinstance(values.get("detail", False), bool):
        raise BadArgument(f"detail is true or false, not {quoted(values['detail'], 60)}.")
    if "noise" in values:
        if not isinstance(values["noise"], list):
            raise BadArgument(f"noise is a list of levels from 1 to 999, not {quoted(values['noise'], 60)}.")
        values["noise"] = tuple(values["noise"])
    return Reading(picture_of(asked["image"]), **values)
