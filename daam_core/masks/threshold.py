"""From heat to a decision by level alone: the paper's threshold, Otsu's, competition between words, and a soft mask.

Maps are float32 `[..., h, w]` of any scale; everything is batched over the leading dimensions and needs no picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..defaults import DEFAULT_TAU
from ..errors import BadArgument
from .validate import checked_maps, checked_positive, checked_share, checked_whole

# Maps of words that stand for something span half of their largest value and more; self-attention that says nothing
# leaves a hundredth.
FLAT = 0.1


def minmax(maps: Tensor) -> Tensor:
    """Each map stretched to 0..1, float32 `[..., h, w]`. A constant map becomes all zero: it points nowhere."""
    maps = checked_maps(maps)
    low, high = maps.amin((-1, -2), keepdim=True), maps.amax((-1, -2), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (maps - low) / spread.clamp(min=torch.finfo(torch.float32).tiny), 0.0)


def stretched(maps: Tensor) -> Tensor:
    """As :func:`minmax`, but a flat map stays flat: one whose range is less than `FLAT` of its largest value reaches only
    that share of 1. What differs by rounding or by a ripple must not look like an object."""
    maps = checked_maps(maps)
    low, high = maps.amin((-1, -2), keepdim=True), maps.amax((-1, -2), keepdim=True)
    most = FLAT * torch.maximum(low.abs(), high.abs())
    return minmax(maps) * ((high - low) / most.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)


def threshold(maps: Tensor, tau: float = DEFAULT_TAU) -> Tensor:
    """Eq. 7 of the paper: `D >= tau * max D`, bool `[..., h, w]`.

    A map without any heat (`max D <= 0`) gives an empty mask, where the letter of the equation would take it all.
    """
    maps, tau = checked_maps(maps), checked_share(tau, "tau")
    peak = maps.amax((-1, -2), keepdim=True)
    return (maps >= tau * peak) & (peak > 0)


def otsu(maps: Tensor, bins: int = 256) -> Tensor:
    """The upper class of Otsu's two, bool `[..., h, w]`: the level that separates each map best into two.

    Levels are `bins` equal steps between a map's minimum and maximum. A constant map gives an empty mask.
    """
    bins = checked_whole(bins, "bins", 2, 2**16)
    scaled = minmax(maps)
    level = (scaled * bins).long().clamp(max=bins - 1).flatten(-2)
    counts = torch.zeros(*level.shape[:-1], bins, device=level.device)
    counts.scatter_add_(-1, level, torch.ones_like(level, dtype=torch.float32))
    place = torch.arange(bins, device=level.device, dtype=torch.float32)
    below = counts.cumsum(-1)
    above = below[..., -1:] - below
    mass = (counts * place).cumsum(-1)
    mean_below = mass / below.clamp(min=1)
    mean_above = (mass[..., -1:] - mass) / above.clamp(min=1)
    between = below * above * (mean_above - mean_below) ** 2
    # All cuts inside an empty stretch are equally good: the first one keeps every pixel above it in the upper class.
    cut = between.argmax(-1, keepdim=True)
    upper = (level > cut) & (between.amax(-1, keepdim=True) > 0)
    return upper.reshape(scaled.shape)


def winners(maps: Tensor, background: float = DEFAULT_TAU) -> Tensor:
    """Which map is the hottest at each pixel: int64 `[..., h, w]`, -1 for the background.

    `maps` is `[..., words, h, w]`. Each is stretched to 0..1 first, so that a word with much attention everywhere
    does not win by its weight; a flat one stays flat (see :func:`stretched`).
    The rest of the prompt counts as one more competitor of constant heat `background`.
    The earlier word wins a tie.
    """
    background, maps = checked_share(background, "background"), checked_maps(maps)
    if maps.ndim < 3 or maps.shape[-3] == 0:
        raise BadArgument(f"maps must be [..., words, height, width] with at least one word, got {list(maps.shape)}.")
    scaled = stretched(maps)
    heat, word = scaled.max(-3)
    return torch.where((heat >= background) & (heat > 0), word, -1)


def compete(maps: Tensor, background: float = DEFAULT_TAU) -> Tensor:
    """One mask a word, no pixel in two: bool `[..., words, h, w]` from maps of that shape. See :func:`winners`."""
    winner = winners(maps, background)
    words = torch.arange(maps.shape[-3], device=maps.device)
    return winner.unsqueeze(-3) == words[:, None, None]


def soft(maps: Tensor, tau: float = DEFAULT_TAU, width: float = 0.3) -> Tensor:
    """A mask with grey edges, float32 0..1 `[..., h, w]`: a linear ramp of `width` around level `tau` of min-max.

    `tau=0.5, width=1` is the stretched map itself.
    """
    tau, width = checked_share(tau, "tau"), checked_positive(width, "width")
    heat = minmax(maps)
    return ((heat - tau) / width + 0.5).clamp(0.0, 1.0) * (heat > 0)
