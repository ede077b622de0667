"""Routes under `/daam-lens/v1/`, shown at `/docs` of a host that was started with `--api`; they ask for `--api-auth` too."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, status
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from daam_core.defaults import DEFAULT_OPACITY, DEFAULT_TAU
from daam_core.maps.prompt_report import prompt_report
from daam_core.maps.statistics import box_region, rank_region
from daam_core.masks.methods import MASK_METHODS

from . import hosts
from .api_answers import concepts_of_run
from .drawing import map_of, mask_of, overlay_of
from .http import MOST_PICKS, BoundedRoute, find_run, or_422, png
from .page_routes import login_of, nobody, page_routes, user_of
from .read_route import add_read_route
from .recording_store import RECORDINGS, StoredRecording
from .settings import COLORMAPS

PREFIX = "/daam-lens/v1"


class MaskRequest(BaseModel):
    """Masks of words."""

    words: list[str] = Field(..., description=f"words or phrases of the prompt, up to {MOST_PICKS}")
    method: str = Field("best", description="one of " + ", ".join(MASK_METHODS))
    tau: float = Field(DEFAULT_TAU, ge=0, le=1, description="threshold as a share of the maximum; not used by best and otsu")


class MapRequest(BaseModel):
    """Heat maps of words as pictures."""

    words: list[str] = Field([], description="words or phrases; none is all content words")
    overlay: bool = Field(True, description="over the picture, or the map alone")
    opacity: float = Field(DEFAULT_OPACITY, ge=0, le=1)
    colormap: str = Field("ember", description="one of " + ", ".join(COLORMAPS))
    colours: str | None = Field(None, description="the former name of colormap")


class RegionRequest(BaseModel):
    """A rectangle of the picture in pixels."""

    x: int
    y: int
    width: int = Field(..., ge=1)
    height: int = Field(..., ge=1)


def add_routes(_demo: Any, app: Any) -> None:
    """`on_app_started`: the tab's routes where there is a page, the API's where the host serves its own (`--api`)."""
    from modules import shared

    login = login_of(app)
    if login is not None:
        who = user_of(app) if hosts.page_host().tells_users() else nobody
        app.include_router(page_routes(login, who))
    if getattr(shared.cmd_opts, "api", False) or getattr(shared.cmd_opts, "nowebui", False):
        app.include_router(routes(_users(getattr(shared.cmd_opts, "api_auth", None))))
        app.openapi_schema = None  # made anew, with our routes, when somebody asks


def routes(users: dict[str, str]) -> APIRouter:
    """The routes.

    Args:
        users: passwords by name; none is open to everybody, as the host's own API then is, and shows nothing of what was made
            behind the page's login.
    """
    whose = None if users else ""
    guard = [Depends(_guard(users))] if users else []
    router = APIRouter(prefix=PREFIX, tags=["DAAM Lens"], dependencies=guard, route_class=BoundedRoute)

    add_read_route(router, nobody)

    @router.get("/runs", summary="The pictures that were recorded lately, newest first")
    def runs() -> dict[str, Any]:
        return {"runs": [_summary(run) for run in RECORDINGS.newest_first(whose)]}

    @router.get("/runs/{run}", summary="One recorded picture: its words and what each did")
    def one(run: str) -> dict[str, Any]:
        found = find_run(run, whose)
        report = prompt_report(found.maps)
        words = [{"word": w.word, "share": w.share, "peak": w.peak, "spread": w.spread} for w in report.words]
        pairs = [{"words": [a, b], "iou": iou} for a, b, iou in report.entangled]
        return {**_summary(found), "report": words, "neglected": list(report.neglected), "entangled": pairs}

    @router.post("/runs/{run}/maps", summary="Heat maps of words, base64 PNG")
    def maps(run: str, body: MapRequest) -> dict[str, Any]:
        found = find_run(run, whose)
        words = body.words or (list(found.words) or found.maps.words)[:MOST_PICKS]
        asked = _said(words)
        return {
            "maps": {word: _base64(_map(found, word, body)) for word in asked},
            "concepts": concepts_of_run(found.maps, asked),
        }

    @router.post("/runs/{run}/masks", summary="Masks of words, base64 PNG, 255 inside")
    def masks(run: str, body: MaskRequest) -> dict[str, Any]:
        found = find_run(run, whose)
        return {
            "masks": {word: _base64(or_422(mask_of, found.maps, word, body.method, body.tau)) for word in _said(body.words)}
        }

    @router.post("/runs/{run}/region", summary="Which words drive a rectangle, strongest first")
    def region(run: str, body: RegionRequest) -> dict[str, Any]:
        maps = find_run(run, whose).maps
        place = or_422(box_region, maps, body.x, body.y, body.width, body.height)
        return {"words": [{"word": r.word, "score": r.score, "lift": r.lift} for r in or_422(rank_region, maps, place)]}

    return router


def _said(words: list[str]) -> list[str]:
    """The words, each once."""
    if not 1 <= len(words) <= MOST_PICKS:
        raise HTTPException(422, f"Give 1 to {MOST_PICKS} words at a time; these are {len(words)}.")
    return list(dict.fromkeys(words))


def _map(run: StoredRecording, word: str, body: MapRequest) -> NDArray[np.uint8]:
    if body.overlay:
        return or_422(overlay_of, run.maps, word, body.opacity, body.colours or body.colormap)
    return or_422(map_of, run.maps, word, body.colours or body.colormap)


def _summary(run: StoredRecording) -> dict[str, Any]:
    height, width = run.maps.size
    return {
        "id": run.id, "made": run.made, "seed": run.seed, "prompt": run.maps.prompt.text, "words": list(run.maps.words),
        "content_words": list(run.maps.content_words), "width": width, "height": height, "steps": run.maps.steps,
        "negative": run.maps.negative is not None, "detail": run.maps.detail is not None,
        "concepts": concepts_of_run(run.maps, run.maps.concepts),
    }  # fmt: skip


def _base64(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(png(pixels)).decode("ascii")


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
