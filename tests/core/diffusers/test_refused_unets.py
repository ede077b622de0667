"""Pipelines of diffusers whose UNets are known and not read: refused by name, before anything is painted."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import StableCascadeDecoderPipeline, StableCascadePriorPipeline, StableCascadeUNet

from daam_core import trace
from daam_core.errors import UnsupportedModel

SMALL: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "conditioning_dim": 8, "block_out_channels": (8, 8), "num_attention_heads": (2, 2),
    "down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1), "clip_text_pooled_in_channels": 8,
}  # fmt: skip


@pytest.mark.parametrize("part", ["prior", "decoder"])
def test_stable_cascade_is_refused_by_its_unet(part: str) -> None:
    unet = StableCascadeUNet(**SMALL, clip_text_in_channels=8, clip_image_in_channels=8)
    others = dict.fromkeys(("tokenizer", "text_encoder", "scheduler"))
    pipe = (
        StableCascadePriorPipeline(**others, prior=unet)
        if part == "prior"
        else StableCascadeDecoderPipeline(**others, decoder=unet, vqgan=None)
    )
    with pytest.raises(UnsupportedModel, match=f"{type(pipe).__name__} cannot be read: of its StableCascadeUNet, in the prior"):
        trace(pipe)
