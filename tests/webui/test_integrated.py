"""Beside the extensions that Forge and reForge bring ("Integrated"): the same picture, and maps that a witness computes from
scratch, or one sentence."""

from __future__ import annotations

import urllib.error
from typing import Any

import numpy as np
import pytest

from .explicit import Call
from .hosts import encoded
from .running import Live, Result
from .test_modes import COLUMN, at, check, hires
from .test_others import TILES, beside

pytestmark = [pytest.mark.host, pytest.mark.slow]
BESIDE: dict[str, list[Any]] = {
    "FreeU Integrated (SD 1.x, SD 2.x, SDXL)": [1.3, 1.4, 0.9, 0.2],
    "FreeU Integrated": [1.3, 1.4, 0.9, 0.2],
    "Kohya HRFix Integrated": [3, 2.0, 0.0, 1.0],
    "PerturbedAttentionGuidance Integrated": [3.0],
    "SelfAttentionGuidance Integrated (SD 1.x, SD 2.x, SDXL)": [0.5, 2.0],
    "SelfAttentionGuidance Integrated": [0.5, 2.0],
    "DynamicThresholding (CFG-Fix) Integrated": [7.0, 0.9],
    "LatentModifier Integrated": [2.0],
    "HyperTile Integrated": [16, 2, 2],
    "Mahiro CFG for reForge": [],
    "RescaleCFG for reForge": ["Normal", 0.7],
    '"APG\'s now your CFG" and Guidance Limiter for reForge': [0.5, 0.18, 0.5],
}
"""What changes how a model is called or what becomes of its answer: its title, its settings behind the tick."""


def sampled_calls(result: Result, steps: int) -> list[Call]:
    """The sampler's own calls: those with both sides. PAG, SAG and references ask about one side alone."""
    own = [call for call in result.calls if set(call["cond_or_uncond"]) == {0, 1}]
    assert len(own) == steps, f"{len(own)} of {len(result.calls)} calls hold both sides in {steps} steps"
    return own


def held_against_the_equation(live: Live, steps: int, image: int = 0, images: int = 1, **body: Any) -> Result:
    """Records once more with the witness; the words' maps are those of the sampler's own calls."""
    seen = live.make(lens={}, watch=True, steps=steps, **body)
    seen.calls = sampled_calls(seen, steps)
    for word in ("house", "tree"):
        check(seen, image, word, lambda _, call: at(call, [COLUMN[word]], image, images))  # noqa: B023
    return seen


@pytest.mark.parametrize("title", BESIDE)
def test_an_integrated_extension_leaves_maps_that_are_right(live: Live, title: str) -> None:
    side = 2 * live.small
    seen = beside(live, title, [True, *BESIDE[title]], width=side, height=side, steps=3)
    assert seen.maps and not seen.note
    more: dict[str, Any] = {"alwayson_scripts": {title: {"args": _arguments(live, title)}}}
    held_against_the_equation(live, 3, width=side, height=side, **more)


def _arguments(live: Live, title: str) -> list[Any]:
    scripts = live.server.get("/sdapi/v1/script-info")
    page = next(one for one in scripts if one["name"] == title.lower() and not one["is_img2img"])
    first = [True, *BESIDE[title]]
    return first + [argument["value"] for argument in page["args"]][len(first) :]


def test_pictures_that_share_their_style(live: Live) -> None:
    """StyleAlign lets the pictures of a batch look at each other, in self-attention alone."""
    title = "StyleAlign Integrated"
    if title.lower() not in live.server.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip(f"{live.name} runs without {title}")
    seen = beside(live, title, [True], batch_size=2)
    assert len(seen.maps) == 2 and not seen.note


# -- ControlNet ----------------------------------------------------------------------------------------------------------


def control(live: Live, **unit: Any) -> dict[str, Any]:
    """A unit of ControlNet with the tests' own model; what it is given replaces the defaults."""
    if "controlnet" not in live.server.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip(f"{live.name} comes without ControlNet")
    model = next(name for name in live.server.get("/controlnet/model_list")["model_list"] if name.startswith("control"))
    known = {"enabled": True, "module": "None", "model": model, "image": encoded(shades(live.small)), "weight": 1.0}
    return {**known, **unit}


def shades(side: int) -> Any:
    y, x = np.mgrid[:side, :side] * 255 // side
    return np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8)


def with_units(*units: dict[str, Any], **others: list[Any]) -> dict[str, Any]:
    scripts = {"ControlNet": {"args": list(units)}, **{title: {"args": args} for title, args in others.items()}}
    return {"alwayson_scripts": scripts}


@pytest.mark.parametrize("mode", ["My prompt is more important", "ControlNet is more important"])
def test_controlnet_whose_strength_differs_by_side(live: Live, mode: str) -> None:
    more = with_units(control(live, control_mode=mode))
    seen = live.compare(**more)
    assert (live.make().images[0] != seen.images[0]).any(), "the ControlNet did nothing: the test shows nothing"
    held_against_the_equation(live, 3, **more)


def test_two_controlnets_for_a_batch(live: Live) -> None:
    """One of them for the first half of the steps alone."""
    early = control(live, guidance_end=0.5, image=encoded(shades(live.small)[::-1]))
    more = {**with_units(control(live), early), "batch_size": 2}
    assert len(live.compare(**more).maps) == 2
    held_against_the_equation(live, 3, image=1, images=2, **more)


def test_controlnet_and_parts(live: Live) -> None:
    more = with_units(control(live))
    seen = live.compare(prompt="a red house AND a green tree :0.6", **more)
    assert seen.maps[0].words == ["a", "red", "house", "a#2", "green", "tree"]


@pytest.mark.parametrize("option", ["Both", "Low res only", "High res only"])
def test_controlnet_and_hires_fix(live: Live, option: str) -> None:
    seen = live.compare(**hires(live), **with_units(control(live, hr_option=option)))
    assert seen.maps and not seen.note


@pytest.mark.parametrize("only_masked", [False, True])
def test_controlnet_and_inpaint(live: Live, only_masked: bool) -> None:
    side = 2 * live.small
    mask = np.zeros((side, side), np.uint8)
    mask[side // 2 :, side // 2 :] = 255
    inpaint: dict[str, Any] = {
        "init_images": [encoded(shades(side))],
        "mask": encoded(mask),
        "inpaint_full_res": only_masked,
        "mask_blur": 0,
    }
    size: dict[str, Any] = {"width": side, "height": side, "denoising_strength": 0.9, "steps": 3}
    seen = live.compare("img2img", **inpaint, **size, **with_units(control(live)))
    assert seen.maps and not seen.note


@pytest.mark.parametrize("page", ["txt2img", "img2img"])
def test_controlnet_that_lays_the_picture_that_stays_around_what_is_painted(live: Live, page: str) -> None:
    """*inpaint_only* gives the model the sampler's latent inside the mask, and outside it a picture with new noise."""
    side = 2 * live.small
    mask = np.zeros((side, side), np.uint8)
    mask[side // 2 :, side // 2 :] = 255
    drawn = np.repeat(mask[..., None], 3, 2)
    more = with_units(control(live, module="inpaint_only", image=encoded(shades(side)), mask_image=encoded(drawn)))
    size: dict[str, Any] = {"width": side, "height": side}
    if page == "img2img":
        inpaint = {"init_images": [encoded(shades(side))], "mask": encoded(mask), "mask_blur": 0, "inpaint_full_res": False}
        size |= {**inpaint, "denoising_strength": 0.9}
    seen = live.compare(page, steps=3, **size, **more)
    assert seen.maps and not seen.note
    if page == "txt2img":
        held_against_the_equation(live, 3, **size, **more)


@pytest.mark.parametrize("module", ["reference_only", "reference_adain", "reference_adain+attn"])
def test_a_reference_picture_is_not_taken_for_the_one_that_is_sampled(live: Live, module: str) -> None:
    """The model is shown the reference before each prediction: same prompt, same size, same noise level."""
    if module not in live.server.get("/controlnet/module_list")["module_list"] if _has_control(live) else True:
        pytest.skip(f"{live.name} has no ControlNet module {module}")
    # By its weight, adain leaves out the blocks of fewer channels than 1500 - 1000 x weight: at 1, all of this checkpoint's.
    more = with_units(control(live, module=module, model="None", weight=1.25))
    seen = live.compare(**more)
    assert (live.make().images[0] != seen.images[0]).any(), "the reference did nothing: the test shows nothing"
    assert seen.maps and not seen.note
    held_against_the_equation(live, 3, **more)


def _has_control(live: Live) -> bool:
    return "controlnet" in live.server.get("/sdapi/v1/scripts")["txt2img"]


def test_controlnet_on_tiles_is_refused(live: Live) -> None:
    side = 2 * live.small
    tiles = [True, "MultiDiffusion", live.small, live.small, 16, 4]
    seen = beside_control(live, "MultiDiffusion Integrated", tiles, width=side, height=side)
    assert not seen.maps and TILES.format(live.small // 8, side // 8) in seen.note


@pytest.mark.parametrize("method", ["MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion"])
def test_controlnet_on_one_tile_is_read(live: Live, method: str) -> None:
    """A tile that holds the whole picture is the sampler's own call."""
    tiles = [True, method, 2 * live.small, 2 * live.small, 16, 4]
    seen = beside_control(live, "MultiDiffusion Integrated", tiles)
    assert seen.maps and not seen.note


def beside_control(live: Live, title: str, first: list[Any], **body: Any) -> Result:
    """With a ControlNet and another of the host's extensions: the same picture; its page's settings behind `first`."""
    pages = [one for one in live.server.get("/sdapi/v1/script-info") if one["name"] == title.lower()]
    page = next((one for one in pages if not one["is_img2img"]), None)
    unit = control(live)
    if page is None or first[1] not in (page["args"][1].get("choices") or []):
        pytest.skip(f"{live.name} has no {title} with {first[1]}")
    args = [argument["value"] for argument in page["args"]]
    more = {**body, **with_units(unit, **{title: first + args[len(first) :]})}
    try:
        live.make(**more)
    except urllib.error.HTTPError as error:  # reForge's own MultiDiffusion fails beside a ControlNet, and SpotDiffusion always
        pytest.skip(f"{live.name} fails at {title} ({first[1]}) beside a ControlNet without DAAM Lens: {error}")
    return live.compare(**more)
