"""Checkpoints for WebUI hosts, made in code: a small random Stable Diffusion, its tokenizer, its config."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from .ldm_weights import Sizes, checkpoint, strided_checkpoint

WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "house",
    "tree",
    "boat",
    "moon",
    "cat",
    "dog",
    "and",
    "of",
    "in",
    "the",
    "on",
    "with",
    "old",
    "small",
    "sky",
    "night",
    ",",
    "photo",
]


def tokenizer_files(folder: Path) -> int:
    """Write a tokenizer of CLIP's format in which WORDS are one token each; returns the size of its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [*map(chr, shown), *(chr(256 + k) for k in range(68))]
    merges: dict[tuple[str, str], int] = {}
    for word in WORDS:
        while len(pieces := _merged([*word[:-1], f"{word[-1]}</w>"], merges)) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special |= {"pad_token": "<|endoftext|>"}
    config = {**special, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    return len(vocabulary)


def _merged(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte pair encoding of one word by the merges so far, the oldest first."""
    while known := [(merges[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in merges]:
        at = min(known)[1]
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]
    return pieces


def ldm_checkpoint(folder: Path, name: str = "tiny", seed: int = 0, sizes: Sizes | None = None) -> Path:
    """A Stable Diffusion 1 of a few hundred thousand weights with its config beside it, for hosts that read configs.

    The tokenizer and the text encoder's config lie in `folder / "clip"`.
    """
    clip = folder / "clip"
    vocabulary = tokenizer_files(clip)
    sizes = sizes or Sizes(vocabulary=vocabulary)
    (clip / "config.json").write_text(json.dumps(text_config(sizes)), encoding="utf-8")
    path = folder / f"{name}.safetensors"
    save_file(checkpoint(sizes, seed), path)
    path.with_suffix(".yaml").write_text(json.dumps(ldm_config(sizes, clip)), encoding="utf-8")  # JSON is YAML
    return path


def text_config(sizes: Sizes) -> dict[str, object]:
    """The text encoder's config, in the words of transformers."""
    return {
        "model_type": "clip_text_model", "vocab_size": sizes.vocabulary, "hidden_size": sizes.context,
        "num_attention_heads": 4, "intermediate_size": 4 * sizes.context, "num_hidden_layers": sizes.text_layers,
        "max_position_embeddings": 77, "projection_dim": sizes.context, "hidden_act": "quick_gelu",
    }  # fmt: skip


def full_shape_checkpoint(folder: Path, name: str = "tiny", seed: int = 0) -> Path:
    """A checkpoint whose widths are Stable Diffusion 1's own, for hosts that know a model by its shapes; its UNet has two
    levels of one block, its text encoder and autoencoder are whole. About 30 MB on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(
        channels=320,
        levels=(1, 1),
        blocks=1,
        context=768,
        text_layers=12,
        vocabulary=49408,
        vae=(128, 256, 512, 512),
        vae_blocks=2,
    )
    path = folder / f"{name}.ckpt"
    torch.save({"state_dict": strided_checkpoint(sizes, seed)}, path)
    return path


def ldm_config(sizes: Sizes, clip: Path) -> dict[str, object]:
    """The config of `ldm_checkpoint`, in the words of the ldm code base."""
    unet = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": sizes.channels,
        "attention_resolutions": [2**i for i in range(len(sizes.levels))], "num_res_blocks": sizes.blocks,
        "channel_mult": list(sizes.levels), "num_heads": 4, "use_spatial_transformer": True, "transformer_depth": 1,
        "context_dim": sizes.context, "use_checkpoint": False, "legacy": False,
    }  # fmt: skip
    vae = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": sizes.vae[0],
        "ch_mult": [width // sizes.vae[0] for width in sizes.vae], "num_res_blocks": sizes.vae_blocks,
        "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    params = {
        "linear_start": 0.00085, "linear_end": 0.0120, "num_timesteps_cond": 1, "log_every_t": 200, "timesteps": 1000,
        "first_stage_key": "jpg", "cond_stage_key": "txt", "image_size": 64, "channels": 4, "cond_stage_trainable": False,
        "conditioning_key": "crossattn", "monitor": "val/loss_simple_ema", "scale_factor": 0.18215, "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": 4, "monitor": "val/rec_loss", "ddconfig": vae, "lossconfig": {"target": "torch.nn.Identity"}
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": str(clip), "device": "cpu", "max_length": 77, "layer": "last"},
        },
    }  # fmt: skip
    return {"model": {"base_learning_rate": 1e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def small_files(data: Path, width: int, full: bool) -> None:
    """An embedding of two vectors ("cat-toy"), a LoRA on keys, a style: what prompts may name.

    Args:
        width: of the text encoder.
        full: whether the UNet has Stable Diffusion 1's own widths.
    """
    generator = torch.Generator().manual_seed(5)
    for folder in ("embeddings", "models/embeddings", "models/Lora"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    embedding = {"emb_params": torch.randn(2, width, generator=generator)}
    for folder in ("embeddings", "models/embeddings"):  # Forge Neo looks in the second
        save_file(embedding, data / folder / "cat-toy.safetensors")
    channels = 320 if full else 32
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    lora = {
        f"{name}.lora_down.weight": torch.randn(4, width, generator=generator),
        f"{name}.lora_up.weight": torch.randn(channels, 4, generator=generator),
        f"{name}.alpha": torch.tensor(4.0),
    }
    save_file(lora, data / "models" / "Lora" / "strong.safetensors")
    (data / "styles.csv").write_text('name,prompt,negative_prompt\nnight,"{prompt}, night sky","red"\n', encoding="utf-8")
