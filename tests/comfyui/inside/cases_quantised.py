"""Quantised checkpoints: q and k are read after the linear layers, so that it does not matter how their weights are kept."""

from __future__ import annotations

from typing import Any

import families
import torch
from torch import nn

SIZES = {"int8": (8, 0), "gguf": (4, 32), "nvfp4": (4, 16)}
"""Bits of a number, and how many of a row share a scale (0: all)."""
_KINDS = (("flux", "Flux"), ("stable_diffusion_1", "SD15"), ("wan", "WAN21_T2V"))


class Packed(nn.Module):
    """A linear layer as packs for quantised checkpoints have it: whole numbers in bytes, made into weights at every call."""

    def __init__(self, linear: nn.Linear, bits: int, block: int) -> None:
        super().__init__()
        weight = linear.weight.data
        rows = weight.reshape(weight.shape[0], -1, block or weight.shape[1])
        largest = 2 ** (bits - 1) - 1
        self.scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-8) / largest
        numbers = (rows / self.scale).round().to(torch.int8) + largest + 1
        self.shape, self.largest, self.bits, self.bias = weight.shape, largest, bits, linear.bias
        flat = numbers.to(torch.uint8).flatten()
        self.packed = flat if bits == 8 else flat[::2] | (flat[1::2] << 4)
        self.numbers = rows.shape

    @property
    def weight(self) -> torch.Tensor:
        """The weights, anew at every look."""
        flat = self.packed
        if self.bits == 4:
            flat = torch.stack([flat & 15, flat >> 4], 1).flatten()
        numbers = flat.float().reshape(self.numbers) - self.largest - 1
        return (numbers * self.scale).reshape(self.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def _quantise(network: nn.Module, bits: int, block: int) -> int:
    """Exchange every linear layer that can be packed; gives how many."""
    found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    linears = [(p, n, c) for p, n, c in found if isinstance(c, nn.Linear) and c.weight.shape[1] % max(block, 2) == 0]
    for parent, name, child in linears:
        setattr(parent, name, Packed(child, bits, block))
    return len(linears)


def case_packed_weights() -> None:
    for kind, (bits, block) in SIZES.items():
        for group, name in _KINDS:
            (family,) = (one for one in families.GROUPS[group] if one.name == name)
            model = families.build(family)
            with torch.inference_mode(False):
                assert _quantise(model.model.diffusion_model, bits, block) > 8, (kind, name)
            families.check_built(family, model)


def case_weights_of_eight_bit_floats() -> None:
    """The host's own way: weights are kept as float8 and cast where they are used."""
    for group, name in _KINDS:
        (family,) = (one for one in families.GROUPS[group] if one.name == name)
        model: Any = families.build(family, torch.float8_e4m3fn)
        network = model.model.diffusion_model
        assert any(weight.dtype == torch.float8_e4m3fn for weight in network.parameters()), name
        families.check_built(family, model)
