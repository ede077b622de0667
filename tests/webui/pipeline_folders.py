"""Small pipelines of diffusers with random weights, saved as the folders that SD.Next loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from ..core.diffusers.transformer_pipelines import sentence_piece
from ..core.models import pipeline, scheduler, text_config, tokenizer

SECOND = 784
"""Width of the second text encoder: SD.Next tells SDXL's by more than 768."""


def autoencoder(**more: Any) -> AutoencoderKL:
    """Eight pixels a latent, as in SD; the host's own decoder asks for this class."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        **more,
    ).eval()


def sd15(folder: Path, seed: int = 0) -> None:
    """SD 1.5's layout."""
    pipe = pipeline("sd15", seed)
    torch.manual_seed(seed)
    pipe.vae = autoencoder()
    pipe.save_pretrained(folder)


def lora(path: Path, model: Path) -> None:
    """A LoRA on the keys and values of every cross-attention of an SD 1.5 folder, strong enough to be seen."""
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    generator = torch.Generator().manual_seed(3)
    weights: dict[str, torch.Tensor] = {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            out, into = layer.weight.shape
            key = f"lora_unet_{name.replace('.', '_')}"
            weights[f"{key}.lora_down.weight"] = torch.randn(2, into, generator=generator)
            weights[f"{key}.lora_up.weight"] = torch.randn(out, 2, generator=generator)
            weights[f"{key}.alpha"] = torch.tensor(2.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


def sdxl(folder: Path, seed: int = 1) -> None:
    """SDXL's layout: two text encoders side by side."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 8),
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
        cross_attention_dim=32 + SECOND,
    )
    pipe: Any = StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(SECOND)).eval(),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet.eval(),
        scheduler=scheduler(),
        add_watermarker=False,
    )
    _spread(pipe.unet)
    pipe.save_pretrained(folder)


def _spread(unet: Any) -> None:
    """Random keys are nearly equal; spread them, so that maps differ between tokens and a wrong column shows."""
    for name, weight in unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_q" in name:
            weight.data *= 8


def flux(folder: Path) -> None:
    """Flux's layout: CLIP for the pooled embedding, T5 for the words."""
    clip, t5 = tokenizer(), sentence_piece()
    torch.manual_seed(2)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=32,
        axes_dims_rope=(2, 2, 4),
    )
    config = T5Config(vocab_size=len(t5), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipe: Any = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(shift_factor=0.0),
        text_encoder=CLIPTextModel(text_config(32)).eval(),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(config).eval(),
        tokenizer_2=t5,
        transformer=transformer.eval(),
    )
    for name, weight in pipe.transformer.named_parameters():
        if weight.dim() >= 2 and any(part in name for part in ("to_q", "to_k", "add_q", "add_k")):
            weight.data *= 4
    pipe.save_pretrained(folder)
