"""Pipelines of the right shape with random weights: what a step costs does not depend on what the weights know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import daam_core
from daam_core import load_tiny

PROMPT = "a red house and a green tree"
_TOKENIZER = Path(daam_core.__file__).parent / "tiny" / "weights" / "pipeline" / "tokenizer"

SD15: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    "cross_attention_dim": 2048,
}
# SDXL's 70 cross-attention layers with next to no arithmetic in them: what is left is the host's work per layer.
HOST_BOUND: dict[str, Any] = SDXL | {
    "block_out_channels": (32, 32, 64),
    "attention_head_dim": (2, 2, 4),
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
    "cross_attention_dim": 64,
}


def build(kind: str) -> Any:
    """A pipeline on the CPU in float32: "tiny" (the model inside), "sd15", "sdxl" or "host" (see `HOST_BOUND`)."""
    if kind == "tiny":
        pipe: Any = load_tiny()
    elif kind == "sd15":
        pipe = StableDiffusionPipeline(
            text_encoder=_filled(CLIPTextModel, _text_config(768)),
            unet=_filled_unet(SD15),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **_shared(),
        )
    else:
        hidden, projection = ((768, 1280), 1280) if kind == "sdxl" else ((32, 32), 32)
        pipe = StableDiffusionXLPipeline(
            text_encoder=_filled(CLIPTextModel, _text_config(hidden[0])),
            text_encoder_2=_filled(CLIPTextModelWithProjection, _text_config(hidden[1], projection)),
            tokenizer_2=_tokenizer(),
            unet=_filled_unet(SDXL if kind == "sdxl" else HOST_BOUND),
            add_watermarker=False,
            **_shared(),
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def cross_attention_layers(pipe: Any) -> int:
    return sum(name.endswith("attn2") for name, _ in pipe.unet.named_modules())


def _shared() -> dict[str, Any]:
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return {"vae": autoencoder.eval(), "tokenizer": _tokenizer(), "scheduler": scheduler}


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(str(_TOKENIZER))


def _text_config(hidden: int, projection: int = 32) -> CLIPTextConfig:
    # Two layers: the text encoder runs before the steps that are measured.
    tokenizer = _tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def _filled_unet(config: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    return _fill(unet.to_empty(device="cpu"))


def _filled(kind: Any, config: CLIPTextConfig) -> nn.Module:
    return _fill(kind(config))


@torch.no_grad()
def _fill(module: nn.Module) -> nn.Module:
    """Small random weights, as quickly as memory can be written: 2.6 billion numbers take seconds, not minutes."""
    bank = torch.randn(2**20, generator=torch.Generator().manual_seed(0)) * 0.02
    for name, weight in module.named_parameters():
        if name.endswith("weight") and weight.dim() == 1:  # norms
            weight.fill_(1.0)
            continue
        flat = weight.view(-1)
        for start in range(0, flat.numel(), bank.numel()):
            part = flat[start : start + bank.numel()]
            part.copy_(bank[: part.numel()])
    return module.eval().requires_grad_(False)
