"""A picture that was not made here, read in a running host: by its own model, at true levels of noise, maps by Eq. 6."""

from __future__ import annotations

import math
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from daam_core import HeatMaps, load_tiny, read_picture
from daam_core.tiny.scenes import scene_at

from .explicit import word_sum
from .hosts import encoded
from .running import PROMPT, Live, word_at
from .test_modes import COLUMN, at

pytestmark = [pytest.mark.host, pytest.mark.slow]
SIDE = 128
MEGAPIXELS = SIDE * SIDE / 1e6
LEVELS = [300, 100]


def photo(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """A red thing on grey."""
    picture = np.full((height, width, 3), 190, np.uint8)
    picture[height // 4 : height // 2, width // 4 : width // 2] = (220, 30, 30)
    return picture


def read(live: Live, picture: NDArray[np.uint8], tmp_path: Path, **asked: Any) -> tuple[HeatMaps, dict[str, Any]]:
    """The maps of a picture, by the API and the tab's own record."""
    body = {"image": encoded(picture), "prompt": PROMPT, "megapixels": MEGAPIXELS, "noise": LEVELS, "seed": 3, **asked}
    answer = live.server.post("/daam-lens/v1/read", body)
    file = tmp_path / "read.safetensors"
    file.write_bytes(live.server.raw(f"/daam-lens/v1/page/runs/{answer['id']}/record"))
    return HeatMaps.load(file), answer


def test_a_picture_is_read_at_true_levels(live: Live, tmp_path: Path) -> None:
    live.make()  # the checkpoint of the other tests is loaded
    live.server.get("/witness/start")
    maps, answer = read(live, photo(), tmp_path)
    path = live.server.data / "witness.pt"
    hooks = live.server.get(f"/witness/stop?path={urllib.parse.quote(str(path))}")["hooks"]
    calls = torch.load(path, weights_only=True)["calls"]
    assert hooks == 0 and answer["notes"] == [] and maps.steps == len(LEVELS)
    assert maps.picture is not None and (maps.picture == photo()).all()
    for word in ("house", "tree"):
        for places, sums in word_at(maps, word).items():
            expected = word_sum(calls, places, lambda _, call: at(call, [COLUMN[word]]))  # noqa: B023
            assert torch.allclose(sums, expected, rtol=2e-4, atol=1e-5), (word, places)
    # What the model was given, less the noise of its level, is the same latent at each: the levels are those of the training.
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    generator = torch.Generator().manual_seed(3)
    shown = [call["sample"][:1].float() for call in calls if 0 in (call["cond_or_uncond"] or [0])]
    clean = []
    for level, sample in zip(LEVELS, shown, strict=True):
        kept = float(alphas[level])
        noise = torch.randn(sample.shape, generator=generator)
        clean.append((sample - math.sqrt(1 - kept) * noise) / math.sqrt(kept))
    first, second = clean
    assert torch.allclose(first, second, atol=2e-3 * float(first.abs().max()))
    assert float(first.std()) > 0


def test_a_size_that_is_no_multiple_and_things_to_look_for(live: Live, tmp_path: Path) -> None:
    picture = photo(101, 150)
    maps, answer = read(live, picture, tmp_path, concepts="boat")
    assert maps.size == (101, 150) and maps.picture is not None and (maps.picture == picture).all()
    assert maps.concepts == ["boat"] and set(answer["concepts"]) == {"boat"}
    assert tuple(maps.mask("house").shape) == (101, 150)
    again, _ = read(live, picture, tmp_path, concepts="boat")
    assert torch.equal(maps.heat_map("house"), again.heat_map("house"))
    other, _ = read(live, picture, tmp_path, concepts="boat", seed=4)
    assert not torch.equal(maps.heat_map("house"), other.heat_map("house"))
    alone, _ = read(live, picture, tmp_path, prompt="", concepts="house, tree")
    assert alone.prompt.text == "a house, a tree" and not alone.concepts


def test_reading_leaves_the_host_as_it_was(live: Live, tmp_path: Path) -> None:
    bare = live.make()
    files = set((live.server.data / "outputs").rglob("*"))
    read(live, photo(), tmp_path)
    assert set((live.server.data / "outputs").rglob("*")) == files
    after = live.make()
    assert (after.images[0] == bare.images[0]).all() and after.infotexts == bare.infotexts


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": ""}, "The prompt is empty; say what is in the picture"),
        ({"noise": [0]}, "noise takes levels from 1"),
        ({"megapixels": 99}, "megapixels is a number from 0"),
        ({"image": "no picture"}, "no base64"),
        ({"image": "aGVsbG8="}, "no picture that can be read"),
        ({"colour": 1}, "There is no 'colour'"),
        ({"seed": -1}, "seed is a whole number"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(live: Live, body: dict[str, Any], said: str) -> None:
    status, answer = live.server.status("/daam-lens/v1/read", {"image": encoded(photo()), "prompt": PROMPT, **body})
    assert status == 422 and said in answer


def test_the_model_inside_reads_as_it_does_in_diffusers(live: Live, tmp_path: Path) -> None:
    if live.name != "a1111":
        pytest.skip("a host that knows a model by its shapes")
    scene = scene_at(5, 0)
    picture, prompt = scene.image, scene.caption
    before = {name: live.server.get("/sdapi/v1/options")[name] for name in ("sd_model_checkpoint", "sd_vae_encode_method")}
    live.server.post("/sdapi/v1/options", {"sd_model_checkpoint": "daam-lens-tiny", "sd_vae_encode_method": "TAESD"})
    try:
        found, _ = read(live, picture, tmp_path, prompt=prompt)
    finally:
        live.server.post("/sdapi/v1/options", before)
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    expected = read_picture(pipe, picture, prompt, noise=LEVELS, seed=3, size=(SIDE, SIDE))
    for word in expected.default_words():
        one, other = found.heat_map(word).flatten(), expected.heat_map(word).flatten()
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98, word
