"""Small random pipelines that make videos."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from ..models import tokenizer as clip_tokenizer
from .transformer_pipelines import WIDTH, TextEncoder, qwen, sentence_piece, spread, wan

__all__ = ["HUNYUAN", "cog_video_x", "column_of", "hunyuan_video", "wan", "wan_with_autoencoder"]


def cog_video_x() -> Any:
    torch.manual_seed(0)
    t5 = sentence_piece()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=WIDTH,
        num_layers=2, sample_width=12, sample_height=8, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=20,
    )  # fmt: skip
    return spread(CogVideoXPipeline(t5, TextEncoder(len(t5)), None, transformer, CogVideoXDDIMScheduler()))


HUNYUAN: dict[str, Any] = {"template": "<|im_start|>describe the image<|im_end|>{}<|im_end|>"}
"""A template of HunyuanVideo's kind; the real one has more pieces in a small vocabulary than the model reads."""
HUNYUAN["crop_start"] = len(qwen()(HUNYUAN["template"].split("{}")[0]).input_ids)


def hunyuan_video() -> Any:
    torch.manual_seed(0)
    llama, clip = qwen(), clip_tokenizer()
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH, rope_axes_dim=(2, 2, 4),
    )  # fmt: skip
    return spread(
        HunyuanVideoPipeline(
            TextEncoder(len(llama)), llama, transformer, None, FlowMatchEulerDiscreteScheduler(), TextEncoder(len(clip)), clip
        )
    )


def column_of(pipe: Any, prompt: str, word: str) -> int:
    """The first of the model's text columns that holds a word, from the tokenizer's own offsets."""
    text, dropped = prompt, 0
    if type(pipe).__name__ == "HunyuanVideoPipeline":
        text, dropped = HUNYUAN["template"].format(prompt), HUNYUAN["crop_start"]
    begin = text.rindex(prompt) + prompt.index(word)
    offsets = pipe.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    touched = [i for i, (a, b) in enumerate(offsets) if a < begin + len(word) and b > begin and text[a:b].strip()]
    return touched[0] - dropped


def wan_with_autoencoder() -> Any:
    """Wan whole: its autoencoder packs four frames into one and eight pixels into one."""
    torch.manual_seed(0)
    t5 = sentence_piece(512)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=WIDTH, freq_dim=16, ffn_dim=16,
        num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    autoencoder = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return spread(WanPipeline(t5, TextEncoder(len(t5)), autoencoder.eval(), FlowMatchEulerDiscreteScheduler(), transformer))
