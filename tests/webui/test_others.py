"""Beside the extensions that people use: maps that are right, or a sentence that names what was seen; the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daam_webui.joined_answers import REGIONS

from .hosts import encoded
from .running import Live, Result, whole

pytestmark = [pytest.mark.host, pytest.mark.slow]
TILES = "tiles or at another size: the model is given {0} x {0} latent positions where the sampler works on {1} x {1}"


def beside(live: Live, extension: str, first: list[Any], **body: Any) -> Result:
    """A picture with another extension at work, with and without DAAM Lens.

    Args:
        first: its first arguments; the others stay as its page has them.
    """
    pages = {one["is_img2img"]: one for one in live.server.get("/sdapi/v1/script-info") if one["name"] == extension.lower()}
    if not pages:
        pytest.skip(f"{live.name} runs without {extension}")
    page = "txt2img" if False in pages else "img2img"  # Forge Neo has its tiles there alone
    if page == "img2img":
        rows, columns = np.mgrid[: body["height"], : body["width"]] * 255 // body["width"]
        body |= {"init_images": [encoded(np.stack([rows, columns, rows], -1).astype(np.uint8))], "denoising_strength": 0.9}
    args = [argument["value"] for argument in pages[page == "img2img"]["args"]]
    body["alwayson_scripts"] = {extension: {"args": first + args[len(first) :]}}
    seen = live.compare(page, **body)
    alone = live.make(page, **{key: value for key, value in body.items() if key != "alwayson_scripts"})
    assert (alone.images[0] != seen.images[0]).any(), f"{extension} did nothing: the test shows nothing"
    return seen


def test_soft_inpainting_is_read(live: Live) -> None:
    """It blends latents by a mask of shades; what the model attends to is its own."""
    side = 2 * live.small
    mask = np.linspace(0, 255, side * side).reshape(side, side).astype(np.uint8)
    inpaint = {"mask": encoded(mask), "inpaint_full_res": False, "inpainting_fill": 1, "mask_blur": 0, "steps": 4}
    seen = beside(live, "Soft Inpainting", [True], width=side, height=side, **inpaint)
    assert seen.maps[0].words == ["a", "red", "house", "and", "a#2", "green", "tree"] and not seen.note


def test_prompts_that_are_written_anew_are_the_ones_that_are_read(live: Live) -> None:
    """Dynamic Prompts' way: each picture of a batch has another prompt than the one that was typed."""
    made = []
    asked: list[dict[str, Any] | None] = [None, {}]
    for lens in asked:
        live.server.get("/witness/fail?where=new%20prompts")
        made.append(live.make(lens=lens, prompt="a {red|blue} house", batch_size=2))
    bare, seen = made
    assert all((a == b).all() for a, b in zip(bare.images, seen.images, strict=False)) and not seen.note
    assert [one.words for one in seen.maps] == [["a", "red", "house"], ["a", "blue", "house"]]
    for one in seen.maps:
        whole(one)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("method", ["MultiDiffusion", "Mixture of Diffusers"])
def test_tiles_are_refused_by_their_size(live: Live, method: str, batch: int) -> None:
    side = 2 * live.small
    if live.name == "a1111":
        first = [True, method, False, True, side, side, live.small // 8, live.small // 8, 4, batch]
        seen = beside(live, "Tiled Diffusion", first, width=side, height=side)
    else:
        first = [True, method, live.small, live.small, 16, batch]
        seen = beside(live, "MultiDiffusion Integrated", first, width=side, height=side)
    assert not seen.maps and TILES.format(live.small // 8, side // 8) in seen.note


def test_prompts_by_region_are_refused(live: Live) -> None:
    """Regional Prompter, Attention mode: each region is given its own chunk of the text."""
    seen = beside(live, "Regional Prompter", [True], prompt="a red house BREAK a green tree")
    assert not seen.maps and "sees 77 columns of the 154 that the model is given" in seen.note


def test_prompts_by_region_in_the_latent_are_read(live: Live) -> None:
    """Regional Prompter, Latent mode: each region is a prompt of its own, as with AND, whose answer is used there alone."""
    first = [True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2", False, False, False, "Latent"]
    seen = beside(live, "Regional Prompter", first, prompt="a red house BREAK a green tree")
    assert {"house", "tree"} <= set(seen.maps[0].words)
    assert live.name != "a1111" or REGIONS in seen.note


def test_negative_words_in_the_prompt_are_refused(live: Live) -> None:
    """NegPiP asks each layer twice: one line in the log, no traceback."""
    before = len(live.server.log())
    seen = beside(live, "NegPiP", [True], prompt="a red house, (green tree:-1.3)")
    log = live.server.log()[before:]
    assert not seen.maps and "about 1 of the 2 rows that the model was given" in seen.note
    assert log.count("DAAM Lens: Recording stopped") == 1 and "Traceback" not in log


def test_a_second_run_inside_a_run(live: Live) -> None:
    """ADetailer's way: a picture that is done is painted over before it is shown; only the outer run draws overlays."""
    made = []
    for lens in (None, {"overlays": True}):
        live.server.get("/witness/fail?where=second%20run")
        made.append(live.make(lens=lens))
    bare, seen = made
    assert (bare.images[0] == seen.images[0]).all()
    assert (bare.images[0] != live.make().images[0]).any(), "there was no second run: the test shows nothing"
    assert len(seen.images) == len(bare.images) + len(seen.maps[0].content_words) and len(seen.runs) == 2
    assert seen.maps[0].words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    whole(seen.maps[0])
