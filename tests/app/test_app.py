"""The app: painting from the form's values, the explorer's page and masks over HTTP, sentences instead of tracebacks."""

from __future__ import annotations

import io
import json
import re
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import load_tiny, trace
from daam_core.cli import main
from daam_core.errors import BadArgument, BadPrompt, NothingRecorded
from daam_core.maps.heatmaps import HeatMaps

gradio = pytest.importorskip("gradio", reason='the app needs gradio: pip install "daam-lens[app]"')
testclient = pytest.importorskip("fastapi.testclient", reason="fastapi's test client needs httpx")

from daam_core.app.page import Generator, _settings  # noqa: E402
from daam_core.app.server import build  # noqa: E402
from daam_core.app.shelf import Shelf  # noqa: E402
from daam_core.diffusers.generation import Settings, defaults, generate_recorded  # noqa: E402

PROMPT = "a red house and a green tree"


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    _picture, recording = generate_recorded(load_tiny(), PROMPT, Settings(seed=3, steps=4, detail=("steps", "layers")))
    return recording.heat_maps()


def test_the_form_asks_the_pipeline_for_what_it_says() -> None:
    """Against the same call written out by hand."""
    pipe, shelf, heard = load_tiny(), Shelf(), []
    settings = Settings(seed=5, steps=3, size=(64, 96), guidance=2.0, negative="a car", detail=("steps",))
    address, note = Generator(pipe, shelf)(PROMPT, settings, lambda done, desc, unit: heard.append(done))  # type: ignore[arg-type, return-value]
    ours = shelf.find(address.removeprefix("explorer/"))
    with trace(load_tiny(), keep="steps", negative=True) as recording:
        recording._pipe(
            PROMPT, negative_prompt="a car", height=64, width=96, num_inference_steps=3, guidance_scale=2.0,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
    theirs = recording.heat_maps()
    assert note == ""
    assert ours.picture is not None and np.array_equal(ours.picture, theirs.picture)
    assert ours.negative is not None and torch.equal(ours.heat_map("house"), theirs.heat_map("house"))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_defaults_are_the_models_own() -> None:
    assert defaults(load_tiny()) == Settings(steps=25, guidance=4.5, size=(128, 128))


def test_an_empty_prompt_is_one_sentence() -> None:
    with pytest.raises(BadPrompt, match="empty"):
        Generator(load_tiny(), Shelf())("  ", Settings(steps=1))


def test_a_size_that_cannot_be_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(BadArgument, match=r"100 x 130 pixels .* multiples of 8\. The nearest size is 96 x 128\."):
        Generator(load_tiny(), Shelf())(PROMPT, Settings(steps=1, size=(130, 100)))


def test_empty_boxes_leave_it_to_the_model() -> None:
    assert _settings(None, None, None, None, 64, None, []) == Settings()
    assert _settings(7, "a car", 5, 2.5, 96, 64, ["steps"]) == Settings(7, 5, (64, 96), 2.5, "a car", ("steps",))


def test_the_shelf_is_bounded_and_says_what_is_gone(maps: HeatMaps) -> None:
    shelf = Shelf(most=2)
    first, second = shelf.keep(maps), shelf.keep(maps)
    shelf.find(first)
    third = shelf.keep(maps)
    assert shelf.find(first) is maps and shelf.find(third) is maps
    with pytest.raises(NothingRecorded, match="make it again"):
        shelf.find(second)


def test_explorer_and_masks_over_http(maps: HeatMaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask is the core's, pixel by pixel; wrong questions get a status and a sentence."""
    shelf = Shelf()
    monkeypatch.setattr("daam_core.app.server.Shelf", lambda: shelf)
    client = testclient.TestClient(build(load_tiny(), "tiny"))
    name = shelf.keep(maps)
    page = client.get(f"/explorer/{name}").text
    data = json.loads(re.search(r'id="daam-data">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert "connect-src 'self'" in page
    assert data["server"] == {"methods": ["best", "walk", "guided", "grabcut"], "masks": f"{name}/mask"}
    asked = {"words": [["word:house"]], "settings": {"method": "best"}}
    answer = client.post(f"/explorer/{name}/mask", content=json.dumps(asked))
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(mask > 127, maps.mask("house").numpy())
    assert client.get("/explorer/unknown").status_code == 404
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
