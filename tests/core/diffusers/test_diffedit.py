"""DiffEdit: a mask of what two prompts make of a picture, the picture's way back to noise, and then the call that paints."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import AutoencoderKL, DDIMInverseScheduler, StableDiffusionDiffEditPipeline

from daam_core import trace

from ..models import PROMPT, pipeline
from .unet_witness import Witness, assert_same


def diffedit() -> Any:
    pipe = pipeline("small")
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).eval()  # fmt: skip
    parts = vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, pipe.scheduler, None, None
    made: Any = StableDiffusionDiffEditPipeline(
        *parts, DDIMInverseScheduler.from_config(pipe.scheduler.config), requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def edit(pipe: Any) -> torch.Tensor:
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    shared: dict[str, Any] = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(1)}
    mask = pipe.generate_mask(
        picture, target_prompt=PROMPT, source_prompt="two cats", num_maps_per_mask=2, output_type="np", **shared
    )
    noise = pipe.invert("two cats", picture, inpaint_strength=0.5, output_type="np", **shared).latents
    out = pipe(PROMPT, mask, noise, inpaint_strength=0.5, negative_prompt="a star", output_type="pt", **shared)
    return torch.as_tensor(out.images)


def test_the_call_that_paints_is_read_and_the_mask_is_no_picture(caplog: pytest.LogCaptureFixture) -> None:
    """The mask's two prompts in one batch were a failed recording, whose sentence was about a call that nobody had made."""
    pipe = diffedit()
    before = edit(pipe)
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    witness = Witness(pipe.unet)
    with caplog.at_level(logging.WARNING, "daam_lens"), trace(pipe) as recording:
        assert torch.equal(edit(pipe), before)
    assert not [line for line in caplog.records if line.name.startswith("daam")]  # diffusers has warnings of its own
    assert all(generation.recording.failure == "" for generation in vars(recording)["_generations"])
    maps = recording.heat_maps()
    painted = len(witness.forwards) - 2
    assert maps.words[2] == "house" and maps.steps == 2
    assert_same(maps.sides["prompt"], witness.of(text, slice(painted, None)))
