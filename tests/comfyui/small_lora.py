"""A LoRA for the model inside, for examples that load one: random, of rank 2, on what its words are read by."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from daam_core import load_tiny


def write_lora(folder: Path, name: str) -> None:
    """Write `folder/name`, in the naming that ComfyUI reads for UNets of diffusers."""
    chance = torch.Generator().manual_seed(3)
    state = {}
    for layer, module in load_tiny().unet.named_modules():
        if layer.endswith(("attn2.to_q", "attn2.to_k")):
            key = "lora_unet_" + layer.replace(".", "_")
            state[f"{key}.lora_up.weight"] = torch.randn(module.weight.shape[0], 2, generator=chance) * 0.1
            state[f"{key}.lora_down.weight"] = torch.randn(2, module.weight.shape[1], generator=chance) * 0.3
    assert state
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / name)
