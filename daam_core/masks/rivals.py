"""Which words compete for a picture's places, and the mask of a word among them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..defaults import DEFAULT_TAU
from ..errors import BadArgument
from .threshold import minmax, threshold, winners
from .validate import checked_maps


def rivals(maps: Tensor, index: int) -> list[int]:
    """Which other words of `maps` `[words, h, w]` stand for another object, as far as their heat can tell.

    A rival's heat spans a range comparable to the word's own (within a factor of 3: on the embedded model nouns stay
    within 1.6 of each other, adjectives reach a sixth and places a twentieth); it is not spread over half of the picture;
    and it is hottest elsewhere. Two words whose hottest places (from 0.8 of min-max) share half are one object, as
    the halves of a compound are, while different objects of one colour leak into each other without ever sharing these.
    """
    maps = checked_maps(maps)
    if maps.ndim != 3 or isinstance(index, bool) or not isinstance(index, int) or not -len(maps) <= index < len(maps):
        raise BadArgument(f"There is no word {index} among maps of {list(maps.shape)}: they are [words, height, width].")
    span = (maps.amax((-1, -2)) - maps.amin((-1, -2))).tolist()
    scaled = minmax(maps).flatten(1)
    wide = ((scaled > 0.5).float().mean(1) >= 0.5).tolist()
    hot = (scaled >= 0.8).float()
    size = hot.sum(1)
    shared = (hot @ hot[index] / torch.minimum(size, size[index]).clamp(min=1)).tolist()
    return [
        k
        for k in range(len(maps))
        if k != index % len(maps) and 0 < span[k] <= 3 * span[index] <= 9 * span[k] and not wide[k] and shared[k] <= 0.5
    ]


def compete_with_rivals(maps: Tensor, tau: float = DEFAULT_TAU) -> Tensor:
    """The mask of the first of `maps` `[words, h, w]` (Eq. 6) among its rivals: bool `[h, w]`.

    Words that are no rivals are left out. The explorer's page does the same (web/explorer/masks.js).
    """
    return threshold_less_rivals(maps[[0, *rivals(maps, 0)]], tau)


def threshold_less_rivals(maps: Tensor, tau: float = DEFAULT_TAU) -> Tensor:
    """Eq. 7 for the first of `maps` `[words, h, w]`, less the places where another one is hotter: bool `[h, w]`."""
    own = threshold(maps[0], tau)
    return own if len(maps) == 1 else own & (winners(maps, 0.0) == 0)
