"""Refining a map by the model's own self-attention, before any picture is looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadArgument
from .validate import checked_maps, checked_positive


def walk(maps: Tensor, self_attention: Tensor, steps: int = 1, power: float = 2.0) -> Tensor:
    """Let heat walk along self-attention: `D <- A D`, `steps` times; float32 `[..., words, h, w]`.

    `maps` is `[..., words, h, w]` or `[h, w]`; `self_attention` is float `[..., n, n]` (query, key), its rows
    probabilities, n = h * w. Each position takes the mean heat of the positions that the model itself looked at from
    there, which are mostly those of the same object. `A` is raised to `power` element by element and its rows
    brought back to sum 1: a power of 2 keeps the strong links and forgets the faint ones to everywhere.
    """
    maps, attention = checked_maps(maps), checked_maps(self_attention, "self_attention")
    h, w = maps.shape[-2:]
    if attention.shape[-2:] != (h * w, h * w):
        raise BadArgument(
            f"Self-attention of {list(attention.shape)} does not fit maps of {h}x{w}: "
            f"it must be [..., {h * w}, {h * w}], recorded at the grid of the maps."
        )
    if steps < 0:
        raise BadArgument(f"steps must be at least zero, got {steps}.")
    power = checked_positive(power, "power")
    if bool((attention < 0).any()):
        raise BadArgument("self_attention holds negative values; it must hold probabilities.")
    attention = attention**power
    total = attention.sum(-1, keepdim=True)
    # A position that looked nowhere keeps its own heat.
    stay = torch.eye(h * w, device=attention.device)
    attention = torch.where(total > 0, attention / total.clamp(min=torch.finfo(torch.float32).tiny), stay)
    heat = maps.flatten(-2)
    for _ in range(steps):
        heat = heat @ attention.transpose(-1, -2)
    return heat.reshape(*heat.shape[:-1], h, w)
