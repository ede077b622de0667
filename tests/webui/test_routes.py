"""The routes without a host: what a client may ask for, and how much of it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from daam_webui.recording_store import RECORDINGS
from daam_webui.settings import Settings

from .test_adapter import maps_of, words_prompt

fastapi = pytest.importorskip("fastapi", reason="fastapi comes with a WebUI, or with pip install fastapi httpx")
pytest.importorskip("httpx", reason="fastapi's test client needs httpx")

API, PAGE = "/daam-lens/v1/runs/RUN", "/daam-lens/v1/page/runs/RUN"


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of both sets of routes; "RUN" in a path is a recorded picture."""
    from fastapi.testclient import TestClient

    from daam_webui.api import routes
    from daam_webui.page_routes import page_routes

    app = fastapi.FastAPI()
    app.include_router(routes({}))
    app.include_router(page_routes([]))
    run = RECORDINGS.keep(maps_of(words_prompt("a red house")), Settings(), ["red", "house"])

    class Client(TestClient):
        def request(self, method: str, url: Any, **kwargs: Any) -> Any:
            return super().request(method, str(url).replace("RUN", run.id), **kwargs)

    with Client(app, raise_server_exceptions=False) as found:
        yield found


def test_each_word_is_drawn_once(client: Any) -> None:
    masks = client.post(f"{API}/masks", json={"words": ["house"] * 60 + ["red"]}).json()["masks"]
    assert list(masks) == ["house", "red"]
    archive = client.post(f"{PAGE}/files", json={"words": [["word:house"]] * 60 + [["word:red"]]}).content
    assert len(zipfile.ZipFile(io.BytesIO(archive)).namelist()) == 2 * 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{API}/masks", {"words": ["house"] * 65}, 422),
        (f"{API}/masks", {"words": ["x" * 100_000]}, 413),
        (f"{API}/maps", {"words": ["house"], "colormap": "mauve"}, 422),
        (f"{API}/maps", {"words": ["house"], "colours": "lagoon"}, 200),
        (f"{API}/region", {"x": 0, "y": 0, "width": 8, "height": 8, "more": "x" * 100_000}, 413),
        (f"{PAGE}/files", {"words": [["word:house"]] * 65}, 422),
        (f"{PAGE}/files", {"words": [["word:house"] * 65]}, 422),
        (f"{PAGE}/files", {"words": [["word:" + "x" * 100_000]]}, 413),
        (f"{PAGE}/mask", {"words": [["word:" + "x" * 100_000]]}, 413),
        (f"{PAGE}/mask", {"words": [["word:house"]]}, 200),
    ],
)
def test_a_request_is_bounded(client: Any, path: str, body: Any, status: int) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    if status == 413:
        assert "at most 64 kB" in answer.json()["detail"]


def test_a_body_of_unknown_length_is_not_read(client: Any) -> None:
    """It would have to be read to the end to know that it is too long."""
    read: list[bytes] = []

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            read.append(b"x" * 1000)
            yield read[-1]

    headers = {"Content-Type": "application/json"}
    assert client.post(f"{API}/masks", content=endless(), headers=headers).status_code == 411
    assert client.post(f"{PAGE}/mask", content=endless(), headers=headers).status_code == 413


def test_both_names_of_the_colour_map_draw_the_same(client: Any) -> None:
    drawn = [client.post(f"{API}/maps", json={"words": ["house"], name: "lagoon"}).json() for name in ("colormap", "colours")]
    plain = client.post(f"{API}/maps", json={"words": ["house"]}).json()
    assert drawn[0] == drawn[1] != plain


def test_under_a_login_each_sees_their_own() -> None:
    """Gradio tells who is logged in by a dependency of its own; an API without a password has nothing of theirs."""
    from fastapi.testclient import TestClient

    from daam_webui.api import routes
    from daam_webui.page_routes import PREFIX, page_routes, user_of

    app = fastapi.FastAPI()

    @app.get("/user")
    def who(name: str | None = fastapi.Header(None)) -> str | None:
        return name

    open_page = fastapi.FastAPI()
    open_page.include_router(page_routes([], user_of(open_page)))
    app.include_router(page_routes([], user_of(app)))
    app.include_router(routes({}))
    made = {
        name: RECORDINGS.keep(maps_of(words_prompt("a red house")), Settings(), ["house"], user=name).id
        for name in ("ann", "bob", "")
    }
    with TestClient(app) as client:
        for name in ("ann", "bob"):
            mine = {"name": name}
            listed = [run["id"] for run in client.get(f"{PREFIX}/runs", headers=mine).json()["runs"]]
            assert made[name] in listed and not set(listed) & (set(made.values()) - {made[name]})
            for owner, run in made.items():
                for path in ("", "/record", "/picture", "/detail/steps"):
                    status = client.get(f"{PREFIX}/runs/{run}{path}", headers=mine).status_code
                    assert (status != 404) == (owner == name), (owner, path)
                for path in ("/mask", "/files"):
                    status = client.post(
                        f"{PREFIX}/runs/{run}{path}", headers=mine, json={"words": [["word:house"]]}
                    ).status_code
                    assert (status != 404) == (owner == name), (owner, path)
            record = client.get(f"{PREFIX}/runs/{made[name]}/record", headers=mine).content
            kind = {"Content-Type": "application/octet-stream"}
            loaded = client.post(f"{PREFIX}/records", content=record, headers={**mine, **kind}).json()["id"]
            assert RECORDINGS.find(loaded, name) is not None
        open_to_all = {run["id"] for run in client.get("/daam-lens/v1/runs").json()["runs"]}
        assert made[""] in open_to_all and not open_to_all & {made["ann"], made["bob"]}
        assert client.get(f"/daam-lens/v1/runs/{made['ann']}").status_code == 404
    with TestClient(open_page) as client:
        asked = client.get(f"{PREFIX}/runs", params={"own": f"{made['ann']},gone"}).json()["runs"]
        assert [run["id"] for run in asked][:2] == [made["ann"], loaded], "its own, then the newest of all"
