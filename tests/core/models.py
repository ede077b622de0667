"""The smallest honest diffusers pipelines: real classes, real shapes of SD 1.5, SD 2 and SDXL, random weights."""

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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import daam_core

TOKENIZER = Path(daam_core.__file__).parent / "tiny" / "weights" / "pipeline" / "tokenizer"
PROMPT = "a red house and a green tree"


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(str(TOKENIZER))


def text_config(hidden: int, projection: int = 32) -> CLIPTextConfig:
    tok = tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tok),
        hidden_size=hidden,
        intermediate_size=64,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.eos_token_id,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ).eval()


def unet(kind: str, in_channels: int = 4) -> UNet2DConditionModel:
    """The block layout of `kind` ("sd15", "sd2", "sdxl") with few channels; "small" is SD 1.5 cut down to two levels, "coarse"
    has three, and no attention on the first."""
    shared: dict[str, Any] = {"in_channels": in_channels, "out_channels": 4, "norm_num_groups": 8, "layers_per_block": 1}
    if kind == "sdxl":
        return UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4, 8),
            transformer_layers_per_block=(1, 2, 3),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
            cross_attention_dim=64,
            **shared,
        ).eval()
    if kind == "small":
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
            **shared,
        ).eval()
    if kind == "coarse":
        return UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
            **shared,
        ).eval()
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=8 if kind == "sd15" else (2, 4, 4, 4),
        use_linear_projection=kind == "sd2",
        cross_attention_dim=32,
        **shared,
    ).eval()


def pipeline(kind: str = "sd15", seed: int = 0) -> Any:
    """A whole pipeline; the same seed gives the same weights."""
    torch.manual_seed(seed)
    if kind == "sdxl":
        pipe: Any = StableDiffusionXLPipeline(
            vae=autoencoder(),
            text_encoder=CLIPTextModel(text_config(32)).eval(),
            text_encoder_2=CLIPTextModelWithProjection(text_config(32)).eval(),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(kind),
            scheduler=scheduler(),
            add_watermarker=False,
        )
    else:
        pipe = StableDiffusionPipeline(
            vae=autoencoder(),
            text_encoder=CLIPTextModel(text_config(32)).eval(),
            tokenizer=tokenizer(),
            unet=unet(kind),
            scheduler=scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    # Random keys are nearly equal; spread them, so that maps differ between tokens and a wrong column shows.
    for name, weight in pipe.unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_q" in name:
            weight.data *= 8
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe: Any, prompt: Any = PROMPT, **options: Any) -> torch.Tensor:
    """Latents or pixels of a short, seeded run: `[images, …]`."""
    settings: dict[str, Any] = {
        "num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt",
        "generator": torch.Generator().manual_seed(1),
    }  # fmt: skip
    return torch.as_tensor(pipe(prompt, **(settings | options)).images)
