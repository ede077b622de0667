"""Refining a map by the model's own self-attention, before any picture is looked at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.precision import full_precision
from ..errors import BadArgument
from ..types import Grid
from .validate import checked_maps, checked_positive, checked_whole

# A layer that a model uses keeps 0.42 to 0.87 of a map's contrast and a correlation of 0.74 to 0.97 with it; one that
# attends evenly to the whole picture (a layer at a size that the model was not trained for) keeps 0.009 to 0.017 and
# -0.44 to 0.22. Of such a map only rounding is left, which must not be stretched to a mask.
LEAST_CONTRAST = 0.1
LEAST_CORRELATION = 0.5


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
    steps = checked_whole(steps, "steps", 0, 1000)
    try:
        torch.broadcast_shapes(maps.shape[:-3], attention.shape[:-2])
    except RuntimeError:
        raise BadArgument(f"Batches of {list(maps.shape)} and {list(attention.shape)} do not fit together.") from None
    power = checked_positive(power, "power")
    if bool((attention < 0).any()):
        raise BadArgument("self_attention holds negative values; it must hold probabilities.")
    attention = attention**power
    total = attention.sum(-1, keepdim=True)
    # A position that looked nowhere keeps its own heat.
    stay = torch.eye(h * w, device=attention.device)
    attention = torch.where(total > 0, attention / total.clamp(min=torch.finfo(torch.float32).tiny), stay)
    heat = maps.flatten(-2)
    with full_precision(heat.device):
        for _ in range(steps):
            heat = heat @ attention.transpose(-1, -2)
    return heat.reshape(*heat.shape[:-1], h, w)


def affinity_attention(affinity: Tensor) -> Tensor:
    """What stands for self-attention where only the affinity of the attention's outputs is known: float32 `[n, n]`, rows sum
    to 1.

    Args:
        affinity: G, `[n, n]`, the mean cosine of the outputs of two places (see `maps.output_space`).

    All outputs have much in common, so that each place's links are what its cosines stand out of their mean, squared: of the
    powers that were tried on the model inside the one that served the default mask best.
    """
    above = (affinity - affinity.mean(-1, keepdim=True)).clamp(min=0) ** 2
    return above / above.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def propagated(maps: Tensor, self_attention: Tensor, grid: Grid, steps: int = 1) -> Tensor | None:
    """`maps` `[words, h, w]` after `steps` of :func:`walk` at the `grid` of the self-attention; float32 `[words, *grid]`.

    Maps of a finer grid are brought there by area averaging. None where self-attention says nothing of the first map: it
    would be even all over, or have nothing to do with what it was.
    """
    pooled = checked_maps(maps)
    if tuple(pooled.shape[-2:]) != tuple(grid):
        pooled = F.adaptive_avg_pool2d(pooled, grid)
    walked = walk(pooled, self_attention.to(pooled.device), steps)
    return walked if _is_kept(pooled[0], walked[0]) else None


def _is_kept(before: Tensor, after: Tensor) -> bool:
    """Whether `after` `[h, w]` still has the contrast of `before` and resembles it. A map without contrast has none to lose."""
    a, b = (one.flatten().double() - one.double().mean() for one in (before, after))
    contrast, left = float(a.norm()), float(b.norm())
    if contrast == 0:
        return True
    return left >= LEAST_CONTRAST * contrast and float(a @ b) >= LEAST_CORRELATION * contrast * left
