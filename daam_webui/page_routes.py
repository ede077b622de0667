"""Routes of the tab, which its page fetches from: there without `--api`, behind the page's own login where it has one."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from daam_core.defaults import DEFAULT_TAU
from daam_core.errors import DaamLensError
from daam_core.explorer.page_data import detail_data, page_data
from daam_core.explorer.selection import picked, server_methods, united_pixels
from daam_core.explorer.standalone import script
from daam_core.files import file_names
from daam_core.maps.heatmaps import HeatMaps
from daam_core.masks.methods import MASK_METHODS

from .drawing import background_for, captioned_map, mask_of, overlay_of
from .http import LARGEST_BODY, MOST_PICKS, BoundedRoute, find_run, or_422, png
from .read_route import add_read_route
from .recording_store import RECORDINGS, StoredRecording
from .settings import COLORMAPS, Settings

PREFIX = "/daam-lens/v1/page"
LARGEST_UPLOAD = 256 * 2**20
RECORD_TYPE = "application/octet-stream"


class PicksRequest(BaseModel):
    """What was chosen in the explorer: each pick one word or the words of a phrase, as `kind:label`."""

    words: list[list[str]] = Field([], description="none is all content words")
    method: str = Field("threshold", description="one of " + ", ".join(MASK_METHODS))
    tau: float = Field(DEFAULT_TAU, ge=0, le=1)


def login_of(app: Any) -> list[Any] | None:
    """What gradio's own page data ask for (a login, where there is one); None where the host has no page."""
    return next((list(route.dependencies) for route in app.routes if getattr(route, "path", "") == "/config"), None)


def user_of(app: Any) -> Callable[..., str | None]:
    """Gradio's own dependency that tells who is logged in; None is nobody, where nobody has to."""
    return next((route.endpoint for route in app.routes if getattr(route, "path", "") == "/user"), nobody)


def nobody() -> str | None:
    """Where there is no login."""
    return None


def page_routes(login: list[Any], who: Callable[..., str | None] = nobody) -> APIRouter:
    """The routes, each with these dependencies; under a login each shows the runs of whoever is logged in alone."""
    router = APIRouter(prefix=PREFIX, dependencies=login, include_in_schema=False, route_class=BoundedRoute)
    _add_views(router, who)
    _add_files(router, who)
    add_read_route(router, who)
    return router


def _add_views(router: APIRouter, who: Callable[..., str | None]) -> None:
    @router.get("/explorer.js")
    def explorer() -> Response:
        text = f"{script()}\nexport {{ mount, useLanguage }};\n"
        return Response(text, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    @router.get("/runs")
    def runs(own: str = "", user: str | None = Depends(who)) -> dict[str, Any]:
        """What the page asked for itself, by the ids in `own`, comes before what others of the same server did."""
        mine = frozenset(own.split(","))
        found = sorted(RECORDINGS.newest_first(user), key=lambda run: run.id not in mine)
        return {"runs": [{"id": run.id, "title": run.title} for run in found]}

    @router.get("/runs/{run}")
    def one(run: str, user: str | None = Depends(who)) -> dict[str, Any]:
        maps = find_run(run, user).maps
        return {**page_data(maps).as_json(), "picture": maps.picture is not None, "methods": server_methods(maps)}

    @router.get("/runs/{run}/picture")
    def picture(run: str, user: str | None = Depends(who)) -> Response:
        found = find_run(run, user).maps.picture
        if found is None:
            raise HTTPException(404, "This record holds no picture.")
        return Response(png(found), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @router.get("/runs/{run}/detail/{axis}")
    def detail(run: str, axis: Literal["steps", "layers", "frames"], user: str | None = Depends(who)) -> dict[str, Any]:
        maps = find_run(run, user).maps
        if axis != "frames" and maps.detail is None:
            raise HTTPException(
                422, f"The {axis} of this run were not kept apart. Tick “Steps and layers apart” for the next one."
            )
        return or_422(detail_data, maps, axis).as_json()

    @router.post("/runs/{run}/mask")
    async def mask(run: str, request: Request, user: str | None = Depends(who)) -> Response:
        """The union of the chosen words' masks before clean-up, which the page does by itself."""
        if int(request.headers.get("content-length") or LARGEST_BODY + 1) > LARGEST_BODY:
            raise HTTPException(413, f"A choice of words has at most {LARGEST_BODY // 1024} kB.")
        choice = (await request.body()).decode("utf-8", "replace")
        return await run_in_threadpool(_mask, find_run(run, user).maps, choice)


def _add_files(router: APIRouter, who: Callable[..., str | None]) -> None:
    @router.post("/runs/{run}/files")
    def files(run: str, body: PicksRequest, user: str | None = Depends(who)) -> Response:
        maps = find_run(run, user).maps
        picks = _picks(body) or [[f"word:{word}"] for word in maps.default_words()[:MOST_PICKS]]
        return _download(_zipped(maps, picks, body), "application/zip", "daam-lens.zip")

    @router.get("/runs/{run}/record")
    def record(run: str, user: str | None = Depends(who)) -> Response:
        found = find_run(run, user)
        with tempfile.TemporaryDirectory() as folder:
            data = found.maps.save(Path(folder) / "record.safetensors").read_bytes()
        return _download(data, RECORD_TYPE, f"daam-{_name(found)}.safetensors")

    @router.post("/records")
    async def load(request: Request, user: str | None = Depends(who)) -> dict[str, str]:
        if request.headers.get("content-type") != RECORD_TYPE:
            # A page of another site may send plain text without asking, but nothing of this type.
            raise HTTPException(415, f"Send the record as {RECORD_TYPE}.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "record.safetensors"
            size = 0
            with path.open("wb") as file:
                async for part in request.stream():
                    size += len(part)
                    if size > LARGEST_UPLOAD:
                        raise HTTPException(413, f"The record is larger than {LARGEST_UPLOAD // 2**20} MB.")
                    file.write(part)
            try:
                maps = HeatMaps.load(path)
            except DaamLensError as error:
                # The copy of the file has a path of its own that says nothing to anybody.
                raise HTTPException(422, str(error).replace(str(path), "The file")) from error
        return {"id": RECORDINGS.keep(maps, Settings(), maps.default_words(), user=user or "").id}


def _picks(body: PicksRequest) -> list[list[str]]:
    """Each pick once."""
    if len(body.words) > MOST_PICKS or any(len(pick) > MOST_PICKS for pick in body.words):
        raise HTTPException(422, f"Up to {MOST_PICKS} words at a time.")
    return [list(pick) for pick in dict.fromkeys(map(tuple, body.words))]


def _mask(maps: HeatMaps, choice: str) -> Response:
    return Response(png(or_422(united_pixels, maps, choice)), media_type="image/png")


def _zipped(maps: HeatMaps, picks: Sequence[Sequence[str]], body: PicksRequest) -> bytes:
    """Overlay, heat map and mask of each pick as PNG files."""
    images: list[tuple[str, NDArray[np.uint8]]] = []
    ground = None if maps.picture is None else background_for(maps)
    for pick in picks:
        side, word = or_422(picked, maps, pick)
        if ground is not None:
            images.append((f"overlay-{word.label}", or_422(overlay_of, side, word, Settings().opacity, COLORMAPS[0], ground)))
        images.append((f"map-{word.label}", or_422(captioned_map, side, word, COLORMAPS[0])))
        images.append((f"mask-{word.label}", or_422(mask_of, side, word, body.method, body.tau)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, (_, pixels) in zip(file_names([name for name, _ in images]), images, strict=True):
            archive.writestr(f"{name}.png", png(pixels))
    return buffer.getvalue()


def _download(data: bytes, kind: str, name: str) -> Response:
    return Response(data, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _name(run: StoredRecording) -> str:
    return str(run.seed) if run.seed >= 0 else run.id
