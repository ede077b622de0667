"""Small random pipelines whose transformer is given the tokens of the prompt, with tokenizers of the kinds of the real ones."""

from __future__ import annotations

import importlib.util
import types
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    Cosmos3OmniPipeline,
    Cosmos3OmniTransformer,
    FlowMatchEulerDiscreteScheduler,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
    UniPCMultistepScheduler,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .transformer_pipelines import NEGATIVES, PROMPTS, qwen, spread


def llama() -> PreTrainedTokenizerFast:
    """Llama's kind: `<s>` ahead, token 1, and pieces with `▁`; no padding of its own."""
    words = sorted({word for text in [*PROMPTS, *NEGATIVES] for word in text.split()} - {"green"})
    letters = [chr(c) for c in range(33, 127)] + ["\n"]
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"▁{w}", -1.0) for w in words)]
    vocabulary += [("▁", -9.0), *((c, -9.0) for c in letters), ("▁gre", -2.0), ("en", -2.0)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=2048
    )


class _Compose:
    """What OmniGen's processor of pictures needs of torchvision, which is not among the packages here."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def __call__(self, picture: Any) -> Any:
        for step in self.steps:
            picture = step(picture)
        return picture


_TRANSFORMS = types.SimpleNamespace(
    Compose=_Compose,
    Lambda=lambda change: change,
    ToTensor=lambda: lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255,
    Normalize=lambda mean, std, inplace: lambda x: (x - mean[0]) / std[0],
)


def with_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OmniGen have its own processor of prompts where torchvision is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        processor = importlib.import_module("diffusers.pipelines.omnigen.processor_omnigen")
        pipeline = importlib.import_module("diffusers.pipelines.omnigen.pipeline_omnigen")
        monkeypatch.setattr(processor, "transforms", _TRANSFORMS, raising=False)
        monkeypatch.setattr(pipeline, "OmniGenMultiModalProcessor", processor.OmniGenMultiModalProcessor, raising=False)


def omnigen() -> Any:
    torch.manual_seed(0)
    tokenizer = llama()
    transformer = OmniGenTransformer2DModel(
        hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32, num_layers=2, in_channels=4,
        time_step_dim=4, pad_token_id=2, vocab_size=len(tokenizer), pos_embed_max_size=16,
        rope_scaling={"long_factor": [1, 2, 3, 4], "short_factor": [1, 2, 3, 4]},
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), latent_channels=4, norm_num_groups=1, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1)
    return spread(OmniGenPipeline(transformer, scheduler, vae, tokenizer))


def cosmos3() -> Any:
    torch.manual_seed(0)
    tokenizer = qwen()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|vision_start|>"]})
    transformer = Cosmos3OmniTransformer(
        head_dim=8, hidden_size=16, intermediate_size=16, latent_channel=4, latent_patch_size=2, num_attention_heads=4,
        num_hidden_layers=2, num_key_value_heads=2, patch_latent_dim=16, rope_axes_dim=[2, 1, 1], vocab_size=len(tokenizer),
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    pipe = Cosmos3OmniPipeline(transformer, tokenizer, vae, UniPCMultistepScheduler(), enable_safety_checker=False)
    return spread(pipe)
