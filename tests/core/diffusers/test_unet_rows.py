"""Whose attention a UNet's rows are: found by content, in every order that pipelines stack them in, and followed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionXLInstructPix2PixPipeline
from torch import Tensor

from daam_core import trace
from daam_core.errors import NothingRecorded

from ..models import PROMPT, paint, pipeline, unet
from .unet_witness import Witness, assert_same

OTHER = "a star"
IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def rows(pipe: Any, prompt: str, negative: str | None = None) -> tuple[Tensor, Tensor]:
    """What the pipeline's encoder gives out for a prompt and for a negative prompt, `[keys, dim]` each."""
    out = pipe.encode_prompt(prompt, negative_prompt=negative, device="cpu", num_images_per_prompt=1,
                             do_classifier_free_guidance=True)  # fmt: skip
    return out[0][0], out[1][0]


def test_sdxl_instruct_pix2pix_has_its_prompt_first() -> None:
    """[prompt, negative, negative]: 0.1.0 gave the negative prompt's map under the prompt's words."""
    base = pipeline("sdxl")
    base.register_modules(unet=unet("sdxl", in_channels=8))
    parts = {k: v for k, v in base.components.items() if k not in ("image_encoder", "feature_extractor")}
    pipe = StableDiffusionXLInstructPix2PixPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    text, _ = rows(pipe, PROMPT, OTHER)
    witness = Witness(pipe.unet)
    options: dict[str, Any] = {"image": IMAGE, "negative_prompt": OTHER, "guidance_scale": 5.0}
    before = paint(pipe, **options)
    witness.forwards.clear()
    with trace(pipe, negative=True) as recording:
        assert torch.equal(paint(pipe, **options), before)
    assert [len(forward.texts) for forward in witness.forwards] == [3, 3]
    maps = recording.heat_maps()
    assert maps.words[:3] == ["a", "red", "house"]
    assert_same(maps.sides["prompt"], witness.of(text))
    second = [forward.sums for forward in witness.forwards]
    true = {n: second[0][n][1] + second[1][n][1] for n in second[0]}  # of two negative rows the one that has the picture
    assert maps.negative is not None and maps.negative.words == ["a", "star"]
    assert_same(maps.sides["negative"], true)


def test_instruct_pix2pix_without_encode_prompt_is_read_from_its_encoder() -> None:
    base = pipeline("small")
    base.register_modules(unet=unet("small", in_channels=8))
    parts = {k: v for k, v in base.components.items() if k != "image_encoder"}
    pipe = StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"image": IMAGE, "height": None, "width": None, "num_images_per_prompt": 2}
    del options["height"], options["width"]
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        pipe(PROMPT, negative_prompt=OTHER, num_inference_steps=2, generator=torch.Generator().manual_seed(1), **options)
    maps = recording.heat_maps(1)
    assert maps.words[:3] == ["a", "red", "house"] and recording.num_images == 2
    first, second = (forward.sums for forward in witness.forwards)
    assert_same(maps.sides["prompt"], {n: first[n][1] + second[n][1] for n in first})
    assert_same(maps.sides["negative"], {n: first[n][3] + second[n][3] for n in first})


def switched(before: float, after: float, changed: Any) -> Any:
    """A callback that changes guidance, and the text with it, after the first of three steps."""

    def callback(pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            pipe._guidance_scale = after
            given["prompt_embeds"] = changed(given["prompt_embeds"])
        return given

    return {"guidance_scale": before, "callback_on_step_end": callback,
            "callback_on_step_end_tensor_inputs": ["prompt_embeds"], "num_inference_steps": 3}  # fmt: skip


def test_guidance_switched_off_by_a_callback_is_followed() -> None:
    """diffusers' own recipe; the row that was the second is the first from then on, here a view into the larger tensor."""
    pipe = pipeline("small")
    text, _ = rows(pipe, PROMPT)
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, **switched(7.5, 1.0, lambda embeds: embeds.chunk(2)[-1]))
    assert [len(forward.texts) for forward in witness.forwards] == [2, 1, 1]
    maps = recording.heat_maps()
    assert (maps.steps, recording.num_generations) == (3, 1)
    assert_same(maps.sides["prompt"], witness.of(text))


def test_guidance_switched_on_by_a_callback_is_followed() -> None:
    pipe = pipeline("small")
    text, negative = rows(pipe, PROMPT)
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, **switched(1.0, 4.0, lambda embeds: torch.cat([negative[None], embeds])))
    assert [len(forward.texts) for forward in witness.forwards] == [1, 2, 2]
    assert recording.heat_maps().steps == 3
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_a_prompt_encoded_in_a_callback_is_a_new_part_of_the_same_run() -> None:
    pipe = pipeline("small")
    text, _ = rows(pipe, PROMPT)
    new, _ = rows(pipe, OTHER)

    def changed(_embeds: Tensor) -> Tensor:
        return torch.cat(pipe.encode_prompt(OTHER, "cpu", 1, True)[::-1])

    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        paint(pipe, **switched(7.5, 7.5, changed))
    maps = recording.heat_maps()
    assert (maps.steps, recording.num_generations) == (3, 1)
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree", "a#3", "star"]
    first, then = witness.of(text), witness.of(new)
    both = {n: torch.cat([first[n][:, 1:8], then[n][:, 1:3]], 1) for n in first}
    assert_same(maps.sides["prompt"], both, list(range(9)))


def test_a_prompt_that_nobody_encoded_is_refused() -> None:
    """No map is better than a wrong one, and the sentence says what to do; the picture is made."""
    pipe = pipeline("small")
    options = switched(7.5, 7.5, lambda embeds: embeds * 0.5)
    before = paint(pipe, **options)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, **options), before)
    with pytest.raises(NothingRecorded, match=r"none of those that the pipeline encoded.*pipe\.encode_prompt"):
        recording.heat_maps()


def test_prompt_and_negative_prompt_alike_do_not_mix_pictures() -> None:
    """Two pictures of prompts "" and "a star" with the negative prompt "": three rows of four are the same text."""
    pipe = pipeline("small")
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        paint(pipe, ["", OTHER])
    first, second = (forward.sums for forward in witness.forwards)
    true = {n: first[n][3] + second[n][3] for n in first}
    assert_same(recording.heat_maps(1).sides["prompt"], true)
    assert recording.heat_maps(0).words == []


@pytest.mark.parametrize("rows", [[0, 2], [0, 1, 3, 2]])
def test_pictures_that_a_callback_leaves_out_or_exchanges_are_told(rows: list[int]) -> None:
    """Of [negative, negative, "a star", PROMPT]: it was said that the pipeline had not encoded them."""
    pipe = pipeline("small")

    def callback(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            given["prompt_embeds"] = given["prompt_embeds"][rows]
            given["latents"] = given["latents"][: len(rows) // 2]
        return given

    options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    before = paint(pipe, [OTHER, PROMPT], **options)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, [OTHER, PROMPT], **options), before)
    with pytest.raises(NothingRecorded, match="those of some of the pictures, or of all in another order"):
        recording.heat_maps()
