"""The app: painting from the form's values, the explorer's page and masks over HTTP, sentences instead of tracebacks."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import load_tiny, trace
from daam_core.cli import main
from daam_core.errors import BadArgument, BadPrompt
from daam_core.explorer.selection import MOST_PICKS
from daam_core.lru_cache import LRUCache
from daam_core.maps.heatmaps import HeatMaps

gradio = pytest.importorskip("gradio", reason='the app needs gradio: pip install "daam-lens[app]"')
fastapi = pytest.importorskip("fastapi", reason="the app needs fastapi")
testclient = pytest.importorskip("fastapi.testclient", reason="fastapi's test client needs httpx")

from daam_core.app.guard import LOOPBACK, is_loopback  # noqa: E402
from daam_core.app.page import Generator, _settings  # noqa: E402
from daam_core.app.routes import LARGEST_BODY, read_body  # noqa: E402
from daam_core.app.server import build  # noqa: E402
from daam_core.diffusers.generation import Settings, defaults, generate_recorded  # noqa: E402

PROMPT = "a red house and a green tree"


def store() -> LRUCache[HeatMaps]:
    return LRUCache(16, 2**28, lambda maps: maps.nbytes)


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    _picture, recording = generate_recorded(load_tiny(), PROMPT, Settings(seed=3, steps=4, detail=("steps", "layers")))
    return recording.heat_maps()


def test_the_form_asks_the_pipeline_for_what_it_says() -> None:
    """Against the same call written out by hand."""
    pipe, kept, seen = load_tiny(), store(), []
    settings = Settings(seed=5, steps=3, size=(64, 96), guidance=2.0, negative="a car", detail=("steps",))
    address, note = Generator(pipe, kept)(PROMPT, settings, lambda done, desc, unit: seen.append(done))  # type: ignore[arg-type, return-value]
    ours = kept.find(address.removeprefix("explorer/"))
    with trace(load_tiny(), keep="steps", negative=True) as recording:
        recording._pipe(
            PROMPT, negative_prompt="a car", height=64, width=96, num_inference_steps=3, guidance_scale=2.0,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
    theirs = recording.heat_maps()
    assert note == ""
    assert ours.picture is not None and np.array_equal(ours.picture, theirs.picture)
    assert ours.negative is not None and torch.equal(ours.heat_map("house"), theirs.heat_map("house"))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_defaults_are_the_models_own() -> None:
    assert defaults(load_tiny()) == Settings(steps=25, guidance=4.5, size=(128, 128))


def test_an_empty_prompt_is_one_sentence() -> None:
    with pytest.raises(BadPrompt, match="empty"):
        Generator(load_tiny(), store())("  ", Settings(steps=1))


def test_a_size_that_cannot_be_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(BadArgument, match=r"100 x 130 pixels .* multiples of 8\. The nearest size is 96 x 128\."):
        Generator(load_tiny(), store())(PROMPT, Settings(steps=1, size=(130, 100)))


def test_empty_boxes_leave_it_to_the_model() -> None:
    assert _settings(None, None, None, None, 64, None, []) == Settings()
    assert _settings(7, "a car", 5, 2.5, 96, 64, ["steps"]) == Settings(7, 5, (64, 96), 2.5, "a car", ("steps",))


@pytest.mark.parametrize("field", ["prompt", "negative prompt"])
@pytest.mark.parametrize(("text", "complaint"), [("x" * 2001, "2001 characters"), ("a house \udcff", "broken character")])
def test_both_prompts_are_looked_at_before_a_step(field: str, text: str, complaint: str) -> None:
    settings = Settings(steps=1, negative=text if field == "negative prompt" else "")
    with pytest.raises(BadPrompt, match=f"The {field} .*{complaint}"):
        Generator(load_tiny(), store())(text if field == "prompt" else PROMPT, settings)


def served(monkeypatch: pytest.MonkeyPatch, host: str = "127.0.0.1") -> tuple[Any, LRUCache[HeatMaps]]:
    """A client of the app, and the store behind it."""
    kept = store()
    monkeypatch.setattr("daam_core.app.server.LRUCache", _Always(kept))
    return testclient.TestClient(build(load_tiny(), "tiny", host), base_url="http://127.0.0.1:7866"), kept


class _Always:
    """Stands for the class of a store, and gives one that the test knows."""

    def __init__(self, kept: LRUCache[HeatMaps]) -> None:
        self._kept = kept

    def __getitem__(self, _: Any) -> Any:
        return lambda *_: self._kept


def test_explorer_and_masks_over_http(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask is the core's, pixel by pixel; wrong questions get a status and a sentence."""
    client, kept = served(monkeypatch)
    name = kept.keep(maps)
    page = client.get(f"/explorer/{name}").text
    data = json.loads(re.search(r'id="daam-data">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert "connect-src 'self'" in page
    assert data["server"] == {"methods": ["best", "walk", "guided", "grabcut"], "masks": f"{name}/mask"}
    asked = {"words": [["word:house"]], "settings": {"method": "best"}}
    answer = client.post(f"/explorer/{name}/mask", content=json.dumps(asked))
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(mask > 127, maps.mask("house").numpy())
    gone = client.get("/explorer/unknown")
    assert gone.status_code == 404 and "make it again" in gone.json()["error"]
    for body in ("no json", "[" * 100_000, json.dumps({"words": 3}), json.dumps({**asked, "settings": {"method": "magic"}})):
        wrong = client.post(f"/explorer/{name}/mask", content=body)
        assert wrong.status_code == 400
        assert wrong.json()["error"].endswith("Choose again on the page.")
    assert client.get("/").status_code == 200


def test_a_taken_port_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 2
    assert "Give another --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        ["--host", "a..b"],
        ["--host", "x" * 300],
        ["--host", "\0"],
        ["--host", "192.0.2.1"],
        ["--port", "65536"],
    ],
)
def test_an_address_that_cannot_be_is_one_sentence(capsys: pytest.CaptureFixture[str], address: list[str]) -> None:
    assert main(["app", *address]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert any(advice in said for advice in ("--host 127.0.0.1", "Give another --host", "from 1 to 65535"))


# -- what strangers send ---------------------------------------------------------------------------------------------


class Body:
    """A request whose parts are counted as they are read."""

    def __init__(self, parts: int, size: int, **headers: str) -> None:
        self.headers, self.parts, self.size, self.read = headers, parts, size, 0

    async def stream(self) -> Any:
        for _ in range(self.parts):
            self.read += self.size
            yield b"x" * self.size


@pytest.mark.parametrize("headers", [{}, {"content-length": "600000000"}, {"content-length": "9" * 400}])
def test_a_body_is_not_read_beyond_its_limit(headers: dict[str, str]) -> None:
    """600 MB, announced or not: at most one part more than the limit is read, and none where the header tells."""
    body = Body(600, 10**6, **headers)
    with pytest.raises(BadArgument, match=f"at most {LARGEST_BODY} bytes"):
        asyncio.run(read_body(body, LARGEST_BODY))  # type: ignore[arg-type]
    assert body.read <= (0 if headers else LARGEST_BODY + body.size)
    assert asyncio.run(read_body(Body(2, 100), LARGEST_BODY)) == b"x" * 200  # type: ignore[arg-type]


def test_the_name_is_looked_at_before_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served(monkeypatch)

    async def nothing_is_read(*_: Any) -> bytes:
        raise AssertionError("the body was read")

    monkeypatch.setattr("daam_core.app.routes.read_body", nothing_is_read)
    assert client.post("/explorer/unknown/mask", content=b"x").status_code == 404


def test_each_word_is_computed_once_and_too_many_are_refused(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    client, kept = served(monkeypatch)
    address = f"/explorer/{kept.keep(maps)}/mask"
    made: list[str] = []
    real = HeatMaps.mask

    def counted(self: HeatMaps, word: Any, *args: Any, **options: Any) -> torch.Tensor:
        made.append(word.label)
        return real(self, word, *args, **options)

    monkeypatch.setattr(HeatMaps, "mask", counted)
    asked = {"words": [["word:house"]] * 512 + [["word:red", "word:house"], ["word:red", "word:red", "word:house"]]}
    assert client.post(address, content=json.dumps({**asked, "settings": {"method": "otsu"}})).status_code == 200
    assert made == ["house", "red house"]
    many = {"words": [[f"word:{i}"] for i in range(MOST_PICKS + 1)]}
    assert f"at most {MOST_PICKS}" in client.post(address, content=json.dumps(many)).json()["error"]


def test_a_mask_ends_when_the_page_leaves(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is gone after the first word: no other word is computed."""
    from daam_core.app import routes

    made: list[str] = []

    def slow(self: HeatMaps, word: Any, *_: Any, **__: Any) -> torch.Tensor:
        made.append(word.label)
        time.sleep(1)
        return torch.zeros(self.size, dtype=torch.bool)

    monkeypatch.setattr(HeatMaps, "mask", slow)
    kept = store()
    path = f"/explorer/{kept.keep(maps)}/mask"
    app = fastapi.FastAPI()
    app.include_router(routes.routes(kept))
    body = json.dumps({"words": [[f"word:{w}"] for w in ("red", "house", "green", "tree")], "settings": {"method": "otsu"}})
    messages = [{"type": "http.request", "body": body.encode(), "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert made == ["red"]


@pytest.mark.parametrize(
    "asked",
    [
        {"words": [["word:house"]], "settings": {"tau": int("9" * 400)}},
        {"words": [["word:house"]], "settings": {"grow": -int("9" * 400)}},
        {"words": [["word:house"]], "part": {"axis": "steps", "frames": [int("9" * 400)]}},
        {"words": [["word:house"]], "part": {"axis": "steps", "frames": [99]}},
    ],
)
def test_numbers_beyond_any_float_are_a_sentence(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    client, kept = served(monkeypatch)
    answer = client.post(f"/explorer/{kept.keep(maps)}/mask", content=json.dumps(asked))
    assert answer.status_code == 400 and len(answer.json()["error"]) < 300


@pytest.mark.parametrize(
    "pick", [["special:<start>", "special:<padding>"], ["word:house", "special:<end>"], ["special:<magic>"], ["word:"]]
)
def test_a_phrase_of_special_tokens_is_no_words(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch, pick: list[str]) -> None:
    """As on the page, what the prompt does not have is left out: an empty mask."""
    client, kept = served(monkeypatch)
    answer = client.post(f"/explorer/{kept.keep(maps)}/mask", content=json.dumps({"words": [pick]}))
    assert answer.status_code == 200
    assert not np.asarray(Image.open(io.BytesIO(answer.content))).any()


def test_on_loopback_only_this_machine_s_names_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served(monkeypatch)
    for name in LOOPBACK:
        shown = f"[{name}]" if name == "::1" else name
        assert client.get("/explorer/unknown", headers={"Host": f"{shown}:7866"}).status_code == 404
    for name in ("evil.example", "127.0.0.1.evil.example", "", "192.168.0.7"):
        assert client.get("/explorer/unknown", headers={"Host": name}).status_code == 400
    everywhere, _ = served(monkeypatch, "0.0.0.0")
    assert everywhere.get("/explorer/unknown", headers={"Host": "my-machine.local"}).status_code == 404
    # Other ways to write this machine's address listen on it alone, too.
    alone = ("127.0.0.1", "127.0.0.9", "::1", "localhost", "127.1", "2130706433", "::ffff:127.0.0.1", "[::1]")
    assert [is_loopback(host) for host in alone] == [True] * len(alone)
    assert [is_loopback(host) for host in ("0.0.0.0", "0", "::", "192.0.2.1", "box", "")] == [False] * 6
    short, _ = served(monkeypatch, "127.1")
    assert short.get("/explorer/unknown", headers={"Host": "evil.example"}).status_code == 400
    assert short.get("/explorer/unknown", headers={"Host": "127.1:7866"}).status_code == 404


def test_what_the_page_does_not_call_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served(monkeypatch)
    for method, path in (
        ("POST", "upload"), ("GET", "file=/etc/hostname"), ("GET", "file/etc/hostname"), ("POST", "call/run"),
        ("POST", "api/run"), ("GET", "proxy=http://example.org"), ("POST", "process_recording"), ("GET", "openapi.json"),
        ("POST", "call/v2/run"),
    ):  # fmt: skip
        assert client.request(method, f"/gradio_api/{path}").status_code == 404, path
    described = client.get("/gradio_api/info").json()
    assert described["named_endpoints"] == {} and described["unnamed_endpoints"] == {}
    assert client.get("/config").status_code == 200
