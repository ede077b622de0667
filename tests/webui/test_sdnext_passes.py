"""SD.Next's passes over a finished picture: it stays the host's, and the maps are those of the pass that made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from daam_core import HeatMaps

from .hosts import encoded
from .sdnext_server import SDNextServer

WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]
PICTURE = encoded(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
MASK = np.zeros((128, 128), np.uint8)
MASK[32:96, 48:112] = 255
IMG2IMG: dict[str, Any] = {"page": "img2img", "init_images": [PICTURE], "denoising_strength": 0.7, "steps": 4}
DETAILER: dict[str, Any] = {
    "detailer_enabled": True, "detailer_steps": 6, "detailer_strength": 0.9, "detailer_resolution": 128,
    "detailer_prompt": "a blue boat",
}  # fmt: skip


@pytest.fixture
def detailer(sdnext: SDNextServer) -> Iterator[SDNextServer]:
    sdnext.options(detailer_models=["found-by-a-stand-in"])
    yield sdnext
    sdnext.options(detailer_models=[])


def same_maps(one: HeatMaps, other: HeatMaps) -> bool:
    return one.steps == other.steps and all(torch.equal(sums, other.sums[grid]) for grid, sums in one.sums.items())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"batch_size": 2},
        {"n_iter": 2},
        {"detailer_include_detections": True, "batch_size": 2},
        {"detailer_prompt": "", "detailer_merge": True},
        IMG2IMG,
        IMG2IMG | {"mask": encoded(MASK), "inpaint_full_res": True},
        {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent Nearest", "hr_force": True, "hr_second_pass_steps": 2,
         "denoising_strength": 0.5, "hr_resize_mode": 1},
    ],
    ids=["one", "pair", "twice", "detections", "merged", "img2img", "inpaint", "hires"],
)  # fmt: skip
def test_the_detailer_repaints_parts_and_the_maps_are_of_the_pass_before_it(
    detailer: SDNextServer, body: dict[str, Any]
) -> None:
    """Its passes are inpaints of crops, with a prompt and steps of their own: none of it may be among the maps."""
    plain, plain_note, _ = detailer.recorded(**body)
    before, _ = detailer.make(**body)
    after, _ = detailer.make(**DETAILER | body)
    assert (before[-1] != after[-1]).any(), "the detailer did nothing: the test shows nothing"
    maps, note, drawn = detailer.recorded({"words": "house"}, **DETAILER | body)
    assert not note and not plain_note
    count = body.get("n_iter", 1) * body.get("batch_size", 1)
    assert drawn == count and [one.words for one in maps] == [WORDS] * count
    assert all(same_maps(one, other) for one, other in zip(maps, plain, strict=True))
    pictures = [one.picture for one in maps if one.picture is not None]
    assert len(pictures) == count
    if not body.get("inpaint_full_res"):  # there a map lies over the part that was painted
        assert all(any((p == a).all() for a in after if a.shape == p.shape) for p in pictures)


@pytest.mark.parametrize("saved", [True, False])
def test_what_is_drawn_is_told_as_its_picture_is_where_detections_stand_between(detailer: SDNextServer, saved: bool) -> None:
    body = {"batch_size": 2, "save_images": saved, "detailer_include_detections": True}
    _, info = detailer.make({"words": "house"}, **DETAILER | body)
    ours = [text for text in info["infotexts"] if "DAAM Lens shows" in text]
    assert len(ours) == 2 and all("Steps: 2" in text and "a red house" in text for text in ours)
    assert "Seed: 7," in ours[0] and "Seed: 8," in ours[1]


@pytest.mark.parametrize("script", ["loopback", "sd upscale"])
def test_a_script_that_paints_over_a_picture_gets_it_alone(sdnext: SDNextServer, script: str) -> None:
    """It works on with every picture of its inner runs; the maps of each are kept apart from them."""
    args: list[Any] = [2, 0.5, "Linear", False]
    if script == "sd upscale":
        args = ["", 16, next(one["name"] for one in sdnext.get("/sdapi/v1/upscalers") if "Lanczos" in one["name"]), 1.5]
    body = IMG2IMG | {"script_name": script, "script_args": args}
    bare, _ = sdnext.make(**body)
    before = [run["id"] for run in sdnext.get("/daam-lens/v1/runs")["runs"]]
    ours, info = sdnext.make({}, **body)
    assert len(ours) == len(bare) and all((a == b).all() for a, b in zip(bare, ours, strict=True)), "the picture changed"
    assert "A script works on with the pictures of this run" in info["extra_generation_params"]["DAAM Lens note"]
    new = [run["id"] for run in sdnext.get("/daam-lens/v1/runs")["runs"] if run["id"] not in before]
    assert len(new) >= 2 and all(sdnext.get(f"/daam-lens/v1/runs/{run}")["words"] for run in new)
