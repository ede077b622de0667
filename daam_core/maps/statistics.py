"""Figures of maps as pure functions: shares, mean probability, words of a region, the prompt report, change.

Of a video, `share`, `mean_probability` and `difference` have its frames as an axis, `[words, frames, H, W]`; all else is of the
sum over its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..defaults import DEFAULT_TAU
from ..errors import BadArgument
from ..masks import minmax, threshold
from ..types import Size
from .word_maps import default_words

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

NEGLECTED_CONTRAST = 1.0
"""A word whose hottest place holds less than this much more than its average did almost nothing to the layout. On the model
inside no object that was drawn falls below it, and a tenth of those that are missing do (`benchmarks.report_thresholds`).
2.3 would find four in five of these, but also call a word idle that covers half of the picture: grass, sky."""
ENTANGLED_IOU = 0.75
"""Two words whose maps (Eq. 7, tau 0.4) overlap by more than this cannot be told apart by place. No two objects that were both
drawn do on the model inside; 0.28 would be enough there, but in Stable Diffusion unrelated words share 0.48 on average and two
words for one thing 0.67 (the paper's Table 2)."""


MOST_PAIRS = 100
"""Pairs that a report names; a long prompt may have thousands."""


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
    """
    size = size or after.grid
    return mean_probability(after, [word], size)[0] - mean_probability(before, [word], size)[0]


def above_negative(maps: HeatMaps, word: str, size: Size | None = None) -> Tensor:
    """A word's attention above what the negative prompt's words get at that position on average: `[H, W]`, in mean probability.

    Raises:
        BadArgument: the negative prompt was not recorded.
    """
    if maps.negative is None:
        raise BadArgument("The negative prompt was not recorded. Record with `trace(pipe, negative=True)`.")
    maps = maps.sum_frames()
    size = size or maps.grid
    other = maps.negative
    assert other is not None
    words = other.words or ["<end>"]
    return mean_probability(maps, [word], size)[0] - mean_probability(other, words, size).mean(0)


def mean_probability(maps: HeatMaps, words: Sequence[str] | None = None, size: Size | None = None) -> Tensor:
    """`[words, H, W]`: the probability 0..1 that a position attends to a word, mean over heads, layers and steps."""
    return maps.heat_maps(words, size) / max(1, sum(maps.num_terms.values()))


@dataclass(frozen=True)
class RankedWord:
    """A word of a region: `score` is its share of the region's attention 0..1, `lift` its mean there over its mean
    in the whole picture (1 = nothing special about this place)."""

    word: str
    score: float
    lift: float


def rank_region(maps: HeatMaps, region: Tensor, words: Sequence[str] | None = None) -> list[RankedWord]:
    """The words of a region, strongest share of its attention first.

    Each word's map is divided by its own mean first: a word with much attention everywhere drives no place in
    particular. The shares of the region are taken among the chosen words.

    Args:
        region: bool or 0..1 weights `[H, W]` over the picture, of a video over all of its frames alike.
        words: candidates; the content words by default.

    Raises:
        BadArgument: the region is empty.
    """
    region = region.float()
    if region.dim() != 2 or not bool((region > 0).any()):
        raise BadArgument("The region is empty: choose a part of the picture.")
    maps = maps.sum_frames()
    names = _content(maps, words)
    heat = maps.heat_maps(names, (region.shape[0], region.shape[1])).clamp(min=0)
    overall = heat.mean((1, 2)).clamp(min=torch.finfo(heat.dtype).tiny)
    lift = (heat * region).sum((1, 2)) / region.sum() / overall
    score = lift / lift.sum().clamp(min=torch.finfo(lift.dtype).tiny)
    ranked = [RankedWord(n, float(s), float(x)) for n, s, x in zip(names, score, lift, strict=True)]
    return sorted(ranked, key=lambda r: -r.score)


def box_region(maps: HeatMaps, x: int, y: int, width: int, height: int) -> Tensor:
    """A rectangle of the picture in pixels as a region, cut to the picture: bool `[H, W]`.

    Raises:
        BadArgument: nothing of it lies in the picture.
    """
    region = torch.zeros(maps.size, dtype=torch.bool)
    region[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    if not bool(region.any()):
        h, w = maps.size
        raise BadArgument(f"The box {x},{y},{width},{height} lies outside the picture of {w} x {h} pixels.")
    return region


@dataclass(frozen=True)
class WordReport:
    """What one word did.

    Attributes:
        word: its label.
        share: its part of the attention all reported words got, 0..1.
        peak: the highest mean probability of its map, 0..1.
        contrast: how far the hottest place stands above the map's mean, in means (0 = perfectly even).
        spread: part of the picture inside the mask of Eq. 7 at tau = 0.4, 0..1.
        closest: the word it overlaps with most, and that IoU; None when it is alone.
    """

    word: str
    share: float
    peak: float
    contrast: float
    spread: float
    closest: tuple[str, float] | None


@dataclass(frozen=True)
class PromptReport:
    """Every word's report, words that did almost nothing, and pairs that cannot be told apart."""

    words: tuple[WordReport, ...]
    neglected: tuple[str, ...]
    entangled: tuple[tuple[str, str, float], ...]

    def lines(self) -> list[str]:
        """The report as sentences for people."""
        out = [f"{'word':16s} {'share':>6s} {'peak':>6s} {'spread':>7s}  overlaps most with"]
        for w in self.words:
            near = f"{w.closest[0]} ({w.closest[1]:.2f})" if w.closest else "-"
            out.append(f"{w.word[:16]:16s} {w.share:6.1%} {w.peak:6.3f} {w.spread:7.1%}  {near}")
        return out + self.notes()

    def notes(self) -> list[str]:
        """A sentence for the neglected words together, and one for each entangled pair."""
        # A colour lies over the whole picture and still works, through its noun: the maps cannot tell that from idleness.
        lines = []
        if self.neglected:
            own, lie = ("its own", "it lies") if len(self.neglected) == 1 else ("their own", "they lie")
            lines.append(
                f"{_listed(self.neglected)} did almost nothing on {own}: {lie} evenly over the picture. Colours and styles "
                "may work so, through other words."
            )
        return lines + [f"“{a}” and “{b}” cannot be told apart by place (IoU {v:.2f})." for a, b, v in self.entangled]


def _listed(words: Sequence[str]) -> str:
    quoted = [f"“{word}”" for word in words]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def prompt_report(maps: HeatMaps, words: Sequence[str] | None = None) -> PromptReport:
    """What each word of a prompt did to the picture; content words by default."""
    maps = maps.sum_frames()
    names = _content(maps, words)
    if not names:
        return PromptReport((), (), ())
    heat = mean_probability(maps, names).clamp(min=0)
    masks = threshold(minmax(heat), DEFAULT_TAU)
    mean = heat.mean((1, 2))
    peak = heat.amax((1, 2))
    contrast = peak / mean.clamp(min=torch.finfo(mean.dtype).tiny) - 1
    pairs = _overlaps(masks)
    np.fill_diagonal(pairs, -1.0)
    reports = []
    for i, name in enumerate(names):
        j = int(pairs[i].argmax())
        closest = (names[j], float(pairs[i, j])) if len(names) > 1 else None
        part = float(mean[i] / mean.sum().clamp(min=torch.finfo(mean.dtype).tiny))
        spread = float(masks[i].float().mean())
        reports.append(WordReport(name, part, float(peak[i]), float(contrast[i]), spread, closest))
    idle = tuple(r.word for r in reports if r.contrast < NEGLECTED_CONTRAST)
    close = np.argwhere(np.triu(pairs, 1) > ENTANGLED_IOU)[:MOST_PAIRS]
    entangled = tuple((names[i], names[j], float(pairs[i, j])) for i, j in close)
    return PromptReport(tuple(reports), idle, entangled)


def _overlaps(masks: Tensor) -> NDArray[np.float32]:
    """IoU of every two masks `[n, h, w]`: float32 `[n, n]`, 0 where both are empty."""
    flat = masks.flatten(1).float()
    both = flat @ flat.T
    size = flat.sum(1)
    either = size[:, None] + size[None] - both
    found: NDArray[np.float32] = torch.where(either > 0, both / either.clamp(min=1), 0.0).numpy()
    return found


def _content(maps: HeatMaps, words: Sequence[str] | None) -> list[str]:
    return list(words) if words is not None else default_words(maps)
