"""What a user gets beside the picture: gallery, files, infotext, API, plot axes; and what happens when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .checkpoints import ldm_checkpoint
from .hosts import FLAGS, ROOT, Server, find, picture
from .running import PROMPT, Live

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_gallery_comes_behind_the_pictures(live: Live) -> None:
    seen = live.make(lens={"overlays": True, "maps": True, "masks": True, "words": "house, green tree"}, batch_size=2)
    grid = int(seen.info["index_of_first_image"])
    assert len(seen.images) == grid + 2 + 2 * 2 * 3
    assert len(seen.info["infotexts"]) == len(seen.images)
    shown = [text.rsplit("DAAM Lens shows: ", 1)[1] for text in seen.info["infotexts"][grid + 2 :]]
    assert shown[:6] == [f"{kind} {word}" for word in ("house", "green tree") for kind in ("overlay", "map", "mask")]
    mask = seen.images[grid + 2 + 2]
    assert set(np.unique(mask)) <= {0, 255}
    assert mask.shape[:2] == (live.small, live.small)


def test_files_lie_beside_the_picture(live: Live) -> None:
    outputs = live.server.data / "outputs"
    before = set(outputs.rglob("*"))
    live.make(lens={"overlays": True, "masks": True, "words": "house"})
    new = {p.name for p in set(outputs.rglob("*")) - before if p.is_file()}
    stems = [name.removesuffix("-daam-mask-house.png") for name in new if name.endswith("-daam-mask-house.png")]
    assert len(stems) == 1
    assert new == {f"{stems[0]}{x}" for x in (".png", "-daam-overlay-house.png", "-daam-mask-house.png", "-daam.safetensors")}
    path = next(p for p in outputs.rglob("*-daam-mask-house.png") if p.name.startswith(stems[0]))
    assert "DAAM Lens shows: mask house" in Image.open(path).info["parameters"]


def test_nothing_is_written_when_the_host_saves_nothing(live: Live) -> None:
    outputs = live.server.data / "outputs"
    before = set(outputs.rglob("*.*"))
    seen = live.make(lens={"masks": True}, save_images=False)
    assert set(outputs.rglob("*.*")) == before
    assert len(seen.images) > 1


@pytest.mark.parametrize("grid", [False, True])
def test_each_drawn_image_tells_its_own_picture(live: Live, grid: bool) -> None:
    """Where the pictures themselves are not saved, the first file that the host writes is the grid, with the first seed."""
    outputs = live.server.data / "outputs"
    before = set(outputs.rglob("*daam*"))
    settings = {"samples_save": False, "grid_save": grid}
    seen = live.make(lens={"overlays": True, "words": "house"}, batch_size=2, override_settings=settings)
    shown = [text for text in seen.info["infotexts"] if "DAAM Lens shows" in text]
    assert ["Seed: 7," in shown[0], "Seed: 8," in shown[1], len(shown)] == [True, True, 2]
    assert set(outputs.rglob("*daam*")) == before


def test_infotext_says_what_was_asked(live: Live) -> None:
    seen = live.make(lens={"words": "house, tree", "method": "threshold", "tau": 0.3})
    text = seen.info["infotexts"][0]
    assert 'DAAM Lens words: "house, tree"' in text and "DAAM Lens method: threshold" in text and "DAAM Lens tau: 0.3" in text


def test_positional_arguments(live: Live) -> None:
    body = {"prompt": PROMPT, "steps": 1, "width": live.small, "height": live.small, "seed": 1}
    args = [True, "house", False, True, True, 0.5, "lagoon", "threshold", 0.5]
    answer = live.server.post("/sdapi/v1/txt2img", {**body, "alwayson_scripts": {"DAAM Lens": {"args": args}}})
    assert len(answer["images"]) == 3


@pytest.mark.parametrize(
    ("lens", "said"),
    [
        ({"words": "zebra"}, "'zebra' is not in the prompt"),
        ({"tau": 7}, "tau is a number from 0 to 1"),
        ({"method": "magic"}, "method is one of"),
        ({"wrods": "house"}, "no setting 'wrods'"),
        ({"enabled": 3}, "enabled is true or false"),
        ({"layers": "sideways"}, "layers are down, mid or up"),
    ],
)
def test_a_wrong_setting_costs_no_picture(live: Live, lens: dict[str, object], said: str) -> None:
    bare = live.make()
    seen = live.make(lens=lens)
    assert (seen.images[0] == bare.images[0]).all()
    assert said in seen.note


def test_a_prompt_without_words(live: Live) -> None:
    seen = live.make(lens={"overlays": True}, prompt="")
    assert "no words" in seen.note and len(seen.images) == 1


def test_a_very_long_prompt_costs_no_picture(live: Live) -> None:
    prompt = "old small sky " * 2000
    bare = live.make(prompt=prompt, steps=1)
    seen = live.make(lens={}, prompt=prompt, steps=1)
    assert (seen.images[0] == bare.images[0]).all()
    assert "too long" in seen.note or "columns" in seen.note


def test_the_model_inside_paints(live: Live) -> None:
    """`daam-lens tiny export`: the checkpoint, its yaml and the TAESD files make a red house of a red house."""
    if live.name != "a1111":
        pytest.skip(f"{live.name} knows a checkpoint by its widths, not by its yaml")
    inside = {"sd_model_checkpoint": "daam-lens-tiny", "sd_vae_decode_method": "TAESD"}
    live.server.post("/sdapi/v1/options", inside)
    try:
        seen = live.make(lens={}, prompt="a red house", width=128, height=128, steps=12, cfg_scale=4)
    finally:
        live.server.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny", "sd_vae_decode_method": "Full"})
    maps = seen.maps[0]
    mask = maps.mask("house").numpy()
    red, green, blue = seen.images[0][mask].mean(0)
    assert 0.05 < mask.mean() < 0.7
    assert red > green + 40 and red > blue + 40
    outside = seen.images[0][~mask].mean(0)
    assert outside[0] < outside[1:].max() + 20


def test_the_example_of_the_documents(live: Live) -> None:
    """Line by line as it stands there: sizes and steps are such as the model inside can do, and a mask comes back."""
    if live.name != "a1111":
        pytest.skip(f"{live.name} knows a checkpoint by its widths, not by its yaml")
    pytest.importorskip("requests")
    text = (ROOT / "docs" / "webui.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("http://127.0.0.1:7860", live.server.url)
    inside = {"sd_model_checkpoint": "daam-lens-tiny", "sd_vae_decode_method": "TAESD"}
    live.server.post("/sdapi/v1/options", inside)
    try:
        told = f"{code}\nprint(len(made['images']), asked['words'], mask)"
        environment = {**os.environ, "no_proxy": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=environment, check=True)
    finally:
        live.server.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny", "sd_vae_decode_method": "Full"})
    images, rest = done.stdout.split(maxsplit=1)
    mask = picture(rest.split()[-1])
    assert int(images) == 5 and mask.shape == (128, 128, 3) and 0.03 < (mask > 0).mean() < 0.7


def test_routes(live: Live) -> None:
    seen = live.make(lens={"detail": True})
    run = seen.info["extra_generation_params"]["DAAM Lens runs"]
    base = f"/daam-lens/v1/runs/{run}"
    assert live.server.get("/daam-lens/v1/runs")["runs"][0]["id"] == run
    one = live.server.get(base)
    assert [w["word"] for w in one["report"]] == ["red", "house", "green", "tree"]
    assert sum(w["share"] for w in one["report"]) == pytest.approx(1, abs=1e-4)
    masks = live.server.post(f"{base}/masks", {"words": ["house"], "method": "threshold", "tau": 0.5})["masks"]
    heat = seen.maps[0].heat_map("house", size=(live.small, live.small))
    expected = (heat >= 0.5 * heat.max()).numpy()
    assert ((picture(masks["house"])[..., 0] > 0) == expected).mean() > 0.999
    assert picture(live.server.post(f"{base}/maps", {"words": ["red house"], "overlay": False})["maps"]["red house"]).shape[0]
    region = live.server.post(f"{base}/region", {"x": 0, "y": 0, "width": 16, "height": 16})["words"]
    assert [w["score"] for w in region] == sorted((w["score"] for w in region), reverse=True)
    assert "/daam-lens/v1/runs/{run}/masks" in live.server.get("/openapi.json")["paths"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/runs/nothing", None, 404),
        ("/runs/..%2F..%2Fconfig.json", None, 404),
        ("/runs/nothing/masks", {"words": ["house"]}, 404),
        ("/runs/RUN/masks", {"words": []}, 422),
        ("/runs/RUN/masks", {"words": ["zebra"]}, 422),
        ("/runs/RUN/masks", {"words": ["house"], "tau": 9}, 422),
        ("/runs/RUN/masks", {"words": ["house"], "method": "magic"}, 422),
        ("/runs/RUN/masks", b"{not json", 422),
        ("/runs/RUN/maps", {"words": ["house"], "colours": "mauve"}, 422),
        ("/runs/RUN/region", {"x": 9999, "y": 0, "width": 4, "height": 4}, 422),
        ("/runs/RUN/region", {"x": 10**400, "y": 0, "width": 4, "height": 4}, 422),
    ],
)
def test_wrong_calls_are_the_callers_fault(live: Live, path: str, body: object, status: int) -> None:
    runs = live.server.get("/daam-lens/v1/runs")["runs"]
    if not runs:
        live.make(lens={})
        runs = live.server.get("/daam-lens/v1/runs")["runs"]
    code, text = live.server.status("/daam-lens/v1" + path.replace("RUN", runs[0]["id"]), body)
    assert code == status, text


def test_plot_axis(live: Live) -> None:
    info = live.server.get("/sdapi/v1/script-info")
    plot = next(s for s in info if s["name"] == "x/y/z plot" and not s["is_img2img"])
    choices = plot["args"][0]["choices"]
    axis = choices.index("[DAAM Lens] threshold")
    # Each axis: type, values, values of the dropdown; what comes behind differs from host to host.
    script_args = [axis, "0.2, 0.9", [], 0, "", [], 0, "", []]
    script_args += [True if arg["label"] == "Include Sub Images" else arg["value"] for arg in plot["args"][9:]]
    seen = live.make(script_name="x/y/z plot", script_args=script_args)
    small, large = seen.images[1], seen.images[2]
    assert set(np.unique(small)) <= {0, 255} and small.mean() > large.mean()


def test_passwords(tmp_path: Path) -> None:
    """`--api-auth` guards the API's routes, the page's own login the tab's; neither opens the other."""
    host, why = find("a1111")
    if host is None:
        pytest.skip(why)
    models = tmp_path / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    ldm_checkpoint(models)
    server = Server(host, tmp_path, flags=[*FLAGS, "--api-auth", "ada:secret", "--gradio-auth", "eve:other"])
    try:
        server.wait()
        assert server.status("/daam-lens/v1/runs")[0] == 401
        assert server.status("/daam-lens/v1/runs", auth="ada:wrong")[0] == 401
        assert server.status("/daam-lens/v1/runs", auth="eve:")[0] == 401
        assert json.loads(server.status("/daam-lens/v1/runs", auth="ada:secret")[1]) == {"runs": []}
        for auth in (None, "ada:secret", "eve:other"):
            assert server.status("/daam-lens/v1/page/runs", auth=auth)[0] == 401
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
        opener.open(f"{server.url}/login", urllib.parse.urlencode({"username": "eve", "password": "other"}).encode())
        assert json.loads(opener.open(f"{server.url}/daam-lens/v1/page/runs").read()) == {"runs": []}
    finally:
        server.stop()
