"""Routes under `/daam-lens/v1/`, shown at `/docs` of a host that was started with `--api`; they ask for `--api-auth` too."""

from __future__ import annotations

import base64
import io
import secrets
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, status
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from daam_core.errors import DaamLensError
from daam_core.mask_methods import METHODS
from daam_core.report import box_region, prompt_report, rank_region

from .looks import map_of, mask_of, overlay_of
from .runs import RUNS, Run
from .settings import COLOURS

MOST_WORDS = 64
PREFIX = "/daam-lens/v1"


class MaskRequest(BaseModel):
    """Masks of words."""

    words: list[str] = Field(..., min_items=1, max_items=MOST_WORDS, description="words or phrases of the prompt")
    method: str = Field("best", description="one of " + ", ".join(METHODS))
    tau: float = Field(0.4, ge=0, le=1, description="threshold as a share of the maximum; not used by best and otsu")


class MapRequest(BaseModel):
    """Heat maps of words as pictures."""

    words: list[str] = Field([], max_items=MOST_WORDS, description="words or phrases; none is all content words")
    overlay: bool = Field(True, description="over the picture, or the map alone")
    opacity: float = Field(0.85, ge=0, le=1)
    colours: str = Field("ember", description="one of " + ", ".join(COLOURS))


class RegionRequest(BaseModel):
    """A rectangle of the picture in pixels."""

    x: int
    y: int
    width: int = Field(..., ge=1)
    height: int = Field(..., ge=1)


def add_routes(_demo: Any, app: Any) -> None:
    """`on_app_started`. Nothing is served without `--api`, as the host does with its own routes."""
    from modules import shared

    if not (getattr(shared.cmd_opts, "api", False) or getattr(shared.cmd_opts, "nowebui", False)):
        return
    users = _users(getattr(shared.cmd_opts, "api_auth", None))
    app.include_router(routes(users))
    app.openapi_schema = None  # made anew, with our routes, when somebody asks


def routes(users: dict[str, str]) -> APIRouter:
    """The routes.

    Args:
        users: passwords by name; none is open to everybody, as the host's own API then is.
    """
    router = APIRouter(prefix=PREFIX, tags=["DAAM Lens"], dependencies=[Depends(_guard(users))] if users else [])

    @router.get("/runs", summary="The pictures that were recorded lately, newest first")
    def runs() -> dict[str, Any]:
        return {"runs": [_summary(run) for run in RUNS.newest_first()]}

    @router.get("/runs/{run}", summary="One recorded picture: its words and what each did")
    def one(run: str) -> dict[str, Any]:
        found = _find(run)
        report = prompt_report(found.maps)
        words = [{"word": w.word, "share": w.share, "peak": w.peak, "spread": w.spread} for w in report.words]
        pairs = [{"words": [a, b], "iou": iou} for a, b, iou in report.entangled]
        return {**_summary(found), "report": words, "neglected": list(report.neglected), "entangled": pairs}

    @router.post("/runs/{run}/maps", summary="Heat maps of words, base64 PNG")
    def maps(run: str, body: MapRequest) -> dict[str, Any]:
        found = _find(run)
        return {"maps": {word: _png(_map(found, word, body)) for word in _said(body.words or found.words)}}

    @router.post("/runs/{run}/masks", summary="Masks of words, base64 PNG, 255 inside")
    def masks(run: str, body: MaskRequest) -> dict[str, Any]:
        found = _find(run)
        return {"masks": {word: _png(_told(mask_of, found.maps, word, body.method, body.tau)) for word in _said(body.words)}}

    @router.post("/runs/{run}/region", summary="Which words drive a rectangle, strongest first")
    def region(run: str, body: RegionRequest) -> dict[str, Any]:
        maps = _find(run).maps
        place = _told(box_region, maps, body.x, body.y, body.width, body.height)
        return {"words": [{"word": r.word, "score": r.score, "lift": r.lift} for r in _told(rank_region, maps, place)]}

    return router


def _find(run: str) -> Run:
    found = RUNS.find(run)
    if found is None:
        raise HTTPException(404, "There is no such run, or it was dropped for newer ones; GET /daam-lens/v1/runs lists them.")
    return found


def _said(words: Any) -> list[str]:
    return list(dict.fromkeys(words))


def _map(run: Run, word: str, body: MapRequest) -> NDArray[np.uint8]:
    if body.overlay:
        return _told(overlay_of, run.maps, word, body.opacity, body.colours)
    return _told(map_of, run.maps, word, body.colours)


def _told(make: Any, *args: Any) -> Any:
    """`make(*args)`; what a client got wrong is its own fault: 422 with the sentence."""
    try:
        return make(*args)
    except DaamLensError as error:
        raise HTTPException(422, str(error)) from error


def _summary(run: Run) -> dict[str, Any]:
    height, width = run.maps.size
    return {
        "id": run.id, "made": run.made, "seed": run.seed, "prompt": run.maps.prompt.text, "words": list(run.maps.words),
        "content_words": list(run.maps.content_words), "width": width, "height": height, "steps": run.maps.steps,
        "negative": run.maps.negative is not None, "detail": run.maps.detail is not None,
    }  # fmt: skip


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _users(value: str | None) -> dict[str, str]:
    """`--api-auth user:password,user:password`."""
    pairs = [pair.strip().split(":", 1) for pair in (value or "").split(",") if ":" in pair]
    return {pair[0]: pair[1] for pair in pairs}


def _guard(users: dict[str, str]) -> Any:
    def check(given: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:  # noqa: B008
        known = users.get(given.username, "")
        right = secrets.compare_digest(known.encode(), given.password.encode())
        if given.username not in users or not right:
            raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Wrong name or password.", headers={"WWW-Authenticate": "Basic"})

    return check
