"""Figures of maps as pure functions: shares, mean probability, words of a region, change (the report: `prompt_report`).

Of a video, `share`, `mean_probability` and `difference` have its frames as an axis, `[words, frames, H, W]`; all else is of the
sum over its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadArgument, quoted
from ..masks.validate import checked_size
from ..prompt.search import several
from ..types import Size
from .word_maps import default_words

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

MOST_DRAWN = 2**25
"""Values of maps that are enlarged for one report or sheet: 32 words at 1024 x 1024 pixels."""
MOST_AT_ONCE = 2**23
"""Of these, how many are held at a time where only a figure is made of them: 32 MB."""


def share(maps: HeatMaps, words: Sequence[str] | None = None, size: Size | None = None) -> Tensor:
    """Each word's share of the attention at each position, among the chosen words: `[words, H, W]`, sums to 1 over words.

    Content words by default. Where no word got any attention, all shares are 0.
    """
    heat = maps.heat_maps(_content(maps, words), size).clamp(min=0)
    total = heat.sum(0, keepdim=True)
    return torch.where(total > 0, heat / total.clamp(min=torch.finfo(heat.dtype).tiny), 0.0)


def difference(after: HeatMaps, before: HeatMaps, word: str, size: Size | None = None) -> Tensor:
    """Where a word gained (> 0) and lost (< 0) attention between two recordings: `[H, W]`, in mean probability.

    Each recording is divided by its own number of terms, so recordings of different length or models compare.

    Raises:
        BadArgument: `before` is no maps, or of another number of frames.
    """
    if not isinstance(before, type(after)):
        raise BadArgument(f"A recording is compared with another one, not with {type(before).__name__}.")
    if before.num_frames != after.num_frames:
        raise BadArgument(
            f"Maps of {after.num_frames} and {before.num_frames} frames have no difference frame by frame: compare "
            "`maps.sum_frames()` of both."
        )
    size = after.grid if size is None else size
    return mean_probability(after, [word], size)[0] - mean_probability(before, [word], size)[0]


def above_negative(maps: HeatMaps, word: str, size: Size | None = None) -> Tensor:
    """A word's attention above what the negative prompt's words get at that position on average: `[H, W]`, in mean probability.

    Raises:
        BadArgument: the negative prompt was not recorded.
    """
    if maps.negative is None:
        raise BadArgument(
            "The negative prompt was not recorded. Record with `trace(pipe, negative=True)` and a guidance scale above 1; at 1 "
            "the model is not given it."
        )
    maps = maps.sum_frames()
    size = maps.grid if size is None else size
    other = maps.negative
    assert other is not None
    words = other.words or ["<end>"]
    return mean_probability(maps, [word], size)[0] - mean_probability(other, words, size).mean(0)


def mean_probability(maps: HeatMaps, words: Sequence[str] | None = None, size: Size | None = None) -> Tensor:
    """`[words, H, W]`: the probability 0..1 that a position attends to a word, mean over heads, layers and steps."""
    return maps.heat_maps(words, size) / max(1, sum(maps.num_terms.values()))


def peaks(maps: HeatMaps, words: Sequence[str]) -> Tensor:
    """The highest mean probability of each word's map over the picture: float32 `[words]`, 0..1; of a video over all frames.

    It is the number at the bright end of the word's colour bar: both are of the map at the picture's size.
    """
    size = size_to_draw(maps.size, len(words) * maps.num_frames)
    most = max(1, MOST_AT_ONCE // (size[0] * size[1] * maps.num_frames))
    parts = [mean_probability(maps, words[i : i + most], size) for i in range(0, len(words), most)]
    return torch.cat([part.flatten(1).amax(1) for part in parts]).clamp(0, 1) if parts else torch.zeros(0)


def size_to_draw(size: Size, maps: int) -> Size:
    """(height, width) at which so many maps of a picture are drawn: the picture's own, smaller where that would be too much.

    Example:
        >>> size_to_draw((512, 768), 8), size_to_draw((4096, 4096), 32)
        ((512, 768), (1024, 1024))
    """
    scale = min(1.0, (MOST_DRAWN / max(1, maps * size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


_TOGETHER = 8
"""A region has as many pixels at most as eight maps may have each, see `size_to_draw`."""


@dataclass(frozen=True)
class RankedWord:
    """A word of a region: `score` is its share of the region's attention 0..1, `lift` its mean there over its mean
    in the whole picture (1 = nothing special about this place)."""

    word: str
    score: float
    lift: float


def rank_region(maps: HeatMaps, region: Tensor | NDArray[Any], words: Sequence[str] | None = None) -> list[RankedWord]:
    """The words of a region, strongest share of its attention first.

    Each word's map is divided by its own mean first: a word with much attention everywhere drives no place in
    particular. The shares of the region are taken among the chosen words. A region of more than some 2048 x 2048 pixels is made
    smaller first.

    Args:
        region: bool or 0..1 weights `[H, W]` over the picture, of a video over all of its frames alike.
        words: candidates; the content words by default.

    Raises:
        BadArgument: the region is empty.
    """
    try:
        given = torch.as_tensor(region)
        if given.is_complex() or given.layout != torch.strided:
            raise TypeError("a region's weights are real numbers, all of them there")
        region = given.detach().cpu().float()
    except (RuntimeError, TypeError, ValueError):
        raise BadArgument(f"A region is a mask or weights [height, width], not {quoted(region, 60)}.") from None
    if region.dim() != 2 or not bool((region > 0).any()):
        raise BadArgument("The region is empty: choose a part of the picture.")
    if not float(region.min()) >= 0 or not bool(torch.isfinite(region).all()):
        raise BadArgument("A region's weights are numbers from 0 to 1; some of these are below 0 or none at all.")
    maps = maps.sum_frames()
    names = _content(maps, words)
    # Not by how many words there are: a word's lift is its own, whichever are asked for beside it.
    size = size_to_draw(checked_size((region.shape[0], region.shape[1])), _TOGETHER)
    if size != region.shape:
        region = torch.nn.functional.adaptive_avg_pool2d(region[None], size)[0]
    most = max(1, MOST_AT_ONCE // (size[0] * size[1]))
    lift = torch.cat([_lift(maps, names[i : i + most], region) for i in range(0, len(names), most)] or [torch.zeros(0)])
    score = lift / lift.sum().clamp(min=torch.finfo(lift.dtype).tiny)
    ranked = [RankedWord(n, float(s), float(x)) for n, s, x in zip(names, score, lift, strict=True)]
    return sorted(ranked, key=lambda r: -r.score)


def _lift(maps: HeatMaps, names: Sequence[str], region: Tensor) -> Tensor:
    """Each word's mean in a region `[H, W]` over its mean in the whole picture: float32 `[words]`."""
    heat = maps.heat_maps(names, (region.shape[0], region.shape[1])).clamp(min=0)
    overall = heat.mean((1, 2)).clamp(min=torch.finfo(heat.dtype).tiny)
    return (heat * region).sum((1, 2)) / region.sum() / overall


def box_region(maps: HeatMaps, x: int, y: int, width: int, height: int) -> Tensor:
    """A rectangle of the picture in pixels as a region, cut to the picture: bool `[H, W]`.

    Raises:
        BadArgument: nothing of it lies in the picture.
    """
    box = {"x": x, "y": y, "width": width, "height": height}
    for name, value in box.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise BadArgument(f"{name} of a box is a whole number of pixels, not {quoted(value, 40)}.")
    x, y, width, height = map(int, box.values())
    (h, w), region = maps.size, torch.zeros(maps.size, dtype=torch.bool)
    rows, columns = (slice(min(max(0, a), most), min(max(0, a + n), most)) for a, n, most in ((y, height, h), (x, width, w)))
    region[rows, columns] = True
    if not bool(region.any()):
        seen = quoted((x, y, width, height), 60)
        raise BadArgument(f"The box {seen} (x, y, width, height) lies outside the picture of {w} x {h} pixels.")
    return region


def _content(maps: HeatMaps, words: Sequence[str] | None) -> list[str]:
    return several(words) if words is not None else default_words(maps)
