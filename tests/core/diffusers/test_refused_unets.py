"""Pipelines of diffusers whose UNets are known and not read: refused by name, before anything is painted."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import torch
from diffusers import (
    AmusedPipeline,
    DreamLiteUNetModel,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LEditsPPPipelineStableDiffusion,
    LEditsPPPipelineStableDiffusionXL,
    ModelMixin,
    StableCascadeDecoderPipeline,
    StableCascadeUNet,
    StableDiffusionPix2PixZeroPipeline,
    UVit2DModel,
    VisualClozeGenerationPipeline,
    VisualClozePipeline,
)
from diffusers.models import unets
from diffusers.pipelines.dreamlite import DreamLitePipeline

from daam_core import trace
from daam_core.capture.refused_families import REFUSED_UNETS
from daam_core.errors import UnsupportedModel

from ..models import unet
from .transformer_pipelines import flux

SMALL: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "conditioning_dim": 8, "block_out_channels": (8, 8), "num_attention_heads": (2, 2),
    "down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1), "clip_text_pooled_in_channels": 8,
}  # fmt: skip


def test_the_decoder_of_stable_cascade_is_refused_and_its_prior_named() -> None:
    unet = StableCascadeUNet(**SMALL, clip_text_in_channels=8, clip_image_in_channels=8)
    others = dict.fromkeys(("tokenizer", "text_encoder", "scheduler"))
    pipe = StableCascadeDecoderPipeline(**others, decoder=unet, vqgan=None)
    with pytest.raises(UnsupportedModel, match=r"of its StableCascadeUNet, the decoder is given a summary .*pipe\.prior_pipe"):
        trace(pipe)


READ = {"UNet2DConditionModel", "UNet3DConditionModel", "UNetMotionModel", "I2VGenXLUNet"}
TEXTLESS = {"UNet1DModel", "UNet2DModel", "MotionAdapter"}
"""Without a prompt, or a part of another."""


def test_every_unet_of_diffusers_is_read_or_refused_by_name() -> None:
    """All classes of all modules, so that a new one of a release does not go unnoticed."""
    found = set()
    for module in pkgutil.iter_modules(unets.__path__):
        for name, value in vars(importlib.import_module(f"{unets.__name__}.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, ModelMixin) and value.__module__.endswith(f".{module.name}"):
                found.add(name)
    assert found - READ - TEXTLESS - set(REFUSED_UNETS) == set(), "neither read nor refused"
    assert found >= READ | TEXTLESS and not READ & set(REFUSED_UNETS)


@pytest.mark.parametrize(
    ("pipeline", "model", "part"),
    [
        (Kandinsky3Pipeline, Kandinsky3UNet, "unet"),
        (DreamLitePipeline, DreamLiteUNetModel, "unet"),
        (AmusedPipeline, UVit2DModel, "transformer"),
    ],
)
def test_what_is_not_read_is_named_before_anything_is_painted(pipeline: Any, model: Any, part: str) -> None:
    pipe = object.__new__(pipeline)
    with torch.device("meta"):
        pipe.__dict__[part] = model()
    with pytest.raises(UnsupportedModel, match=f"{model.__name__},? .*{REFUSED_UNETS[model.__name__][:30]}"):
        trace(pipe)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (LEditsPPPipelineStableDiffusion, "it is told what to change, by several texts at once"),
        (LEditsPPPipelineStableDiffusionXL, "it is told what to change, by several texts at once"),
        (StableDiffusionPix2PixZeroPipeline, "it paints twice, and the second time from a text that it has changed as numbers"),
    ],
)
def test_pipelines_that_edit_by_texts_of_their_own_are_refused_with_what_to_do(kind: Any, why: str) -> None:
    """Their UNets are Stable Diffusion's, which are read."""
    pipe = object.__new__(kind)
    pipe.__dict__["unet"] = unet("small")
    with pytest.raises(UnsupportedModel, match=f"{kind.__name__} cannot be read: {why}, .* give that to `read_picture`"):
        trace(pipe)


@pytest.mark.parametrize("pipeline", [VisualClozePipeline, VisualClozeGenerationPipeline])
def test_several_pictures_on_one_canvas_are_refused(pipeline: Any) -> None:
    """Its transformer is Flux's, which is read."""
    pipe = object.__new__(pipeline)
    pipe.__dict__["transformer"] = flux().transformer
    with pytest.raises(UnsupportedModel, match=f"{pipeline.__name__} cannot be read: it paints several pictures at once"):
        trace(pipe)
