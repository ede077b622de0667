"""The prompt report: what each word did, which objects may be missing, which pairs share their places.

It speaks of words that stand for objects (`prompt.objects`) and of nothing else: that a colour or a place lies evenly over
the picture proves nothing, since it may work through another word.
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
from ..masks import threshold
from ..prompt.objects import object_words
from .statistics import mean_probability, peaks
from .word_maps import default_words, each_once

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

COLUMNS = (
    "share: part of the attention of these words. peak: part of the attention at the word's hottest place.",
    "spread: part of the picture where the word has 0.4 of its peak or more; the last column is how far two words' places",
    "are the same ones (IoU: 0 none, 1 all).",
)
"""What the columns of the report are, in lines of text."""
MOST_PAIRS = 100
"""Pairs that a report names; a long prompt may have thousands."""


@dataclass(frozen=True)
class ReportThresholds:
    """When the report speaks. All are ratios, so that they carry over to other models as far as ratios do.

    Chosen on the model inside (`python -m benchmarks.report_thresholds`); `daam-lens fit-report` chooses them on one's own
    pictures.

    Attributes:
        margin: by how much of the strongest peak a word must lead the other nouns for a place to be its own, 0..1.
        won: a word that has fewer of the picture's places than this may be missing, 0..1.
        led: two words of which one leads the other, by that margin, at fewer of the picture's places than this share their
            places, 0..1.
    """

    margin: float = 0.25
    won: float = 0.03
    led: float = 0.022


@dataclass(frozen=True)
class WordReport:
    """What one word did.

    Attributes:
        word: its label.
        share: its part of the attention all reported words got, 0..1.
        peak: the highest mean probability of its map at the picture's size, 0..1: the number beside its colour bar.
        contrast: how far the hottest place stands above the map's mean, in means (0 = perfectly even).
        spread: part of the picture inside the mask of Eq. 7 at tau = 0.4, 0..1.
        closest: the word it overlaps with most, and that IoU; None when it is alone.
        won: part of the picture where it clearly leads every other noun, 0..1; None of what is no object or the only one.
        strongest: the noun that leads where this one is hottest; None as above.
    """

    word: str
    share: float
    peak: float
    contrast: float
    spread: float
    closest: tuple[str, float] | None
    won: float | None = None
    strongest: str | None = None


@dataclass(frozen=True)
class PromptReport:
    """Every word's report, objects that may be missing, and pairs that share their places (with the IoU of their masks)."""

    words: tuple[WordReport, ...]
    neglected: tuple[str, ...]
    entangled: tuple[tuple[str, str, float], ...]

    def lines(self) -> list[str]:
        """The report as sentences for people."""
        out = [f"{'word':16s} {'share':>6s} {'peak':>6s} {'spread':>7s}  overlaps most with"]
        for w in self.words:
            near = f"{w.closest[0]} ({w.closest[1]:.2f})" if w.closest else "-"
            out.append(f"{w.word[:16]:16s} {w.share:6.1%} {w.peak:6.1%} {w.spread:7.1%}  {near}")
        explained = ["", *COLUMNS] if self.words else []
        notes = self.notes()
        return [*out, *explained, *([""] if notes else []), *notes]

    def notes(self) -> list[str]:
        """A sentence for each object that may be missing, and for each pair that shares its places."""
        winners = {w.word: w.strongest for w in self.words}
        missing = [_missing(word, winners.get(word)) for word in self.neglected]
        return missing + [
            f"“{a}” and “{b}” share their places (IoU {v:.2f}): one thing may stand for both, or one of them may be missing."
            for a, b, v in self.entangled
            if a not in self.neglected and b not in self.neglected
        ]


def _missing(word: str, winner: str | None) -> str:
    to = f" to “{winner}”" if winner else ""
    return f"“{word}” lost nearly every place{to}; it may be missing from the picture."


def prompt_report(
    maps: HeatMaps, words: Sequence[str] | None = None, thresholds: ReportThresholds | None = None
) -> PromptReport:
    """What each word of a prompt did to the picture; content words by default.

    Objects that may be missing: words for objects whose late map (steps weighted by j squared) exceeds that of every other
    such word by `thresholds.margin` of the strongest peak at fewer than `thresholds.won` of all places. Each map counts from
    its own lowest value: how strongly a word attends everywhere says nothing of where it is. One object alone has nothing to
    lose to, and is never called missing.

    Example:
        >>> prompt_report(maps).neglected
        ()
    """
    maps = maps.sum_frames()
    names = each_once(maps, words) if words is not None else default_words(maps)
    if not names:
        return PromptReport((), (), ())
    limits = thresholds or ReportThresholds()
    heat = mean_probability(maps, names).clamp(min=0)
    masks = threshold(heat, DEFAULT_TAU)
    mean = heat.mean((1, 2))
    peak = peaks(maps, names)
    tiny = torch.finfo(mean.dtype).tiny
    contrast = peak / mean.clamp(min=tiny) - 1
    pairs = _overlaps(masks)
    np.fill_diagonal(pairs, -1.0)
    objects = objects_among(maps, names)
    late = late_maps(maps, [names[i] for i in objects]) if len(objects) > 1 else None
    won = dict(zip(objects, won_places(late, limits.margin), strict=True)) if late is not None else {}
    strongest = dict(zip(objects, _strongest(late), strict=True)) if late is not None else {}
    reports = []
    for i, name in enumerate(names):
        j = int(pairs[i].argmax())
        closest = (names[j], float(pairs[i, j])) if len(names) > 1 else None
        part = float(mean[i] / mean.sum().clamp(min=tiny))
        rival = names[objects[strongest[i]]] if i in strongest else None
        spread = float(masks[i].float().mean())
        reports.append(WordReport(name, part, float(peak[i]), float(contrast[i]), spread, closest, won.get(i), rival))
    missing = tuple(r.word for r in reports if r.won is not None and r.won < limits.won)
    shared = [] if late is None else np.argwhere(np.triu(led_places(late, limits.margin) < limits.led, 1))[:MOST_PAIRS].tolist()
    entangled = [(objects[a], objects[b]) for a, b in shared]
    return PromptReport(tuple(reports), missing, tuple((names[a], names[b], float(pairs[a, b])) for a, b in entangled))


def objects_among(maps: HeatMaps, names: Sequence[str]) -> list[int]:
    """Which of `names` are words for objects, or phrases that hold one: their indices. Of names that share a word ("house",
    "red house") the shortest stands for the object, and is not held against the others."""
    found = [set(maps.prompt.find(label).channels) for label in object_words(maps.prompt)]
    own = [set(maps.prompt.find(name).channels) for name in names]
    held = [i for i, channels in enumerate(own) if any(one <= channels for one in found)]
    chosen: list[int] = []
    taken: set[int] = set()
    for i in sorted(held, key=lambda i: len(own[i])):
        if taken.isdisjoint(own[i]):
            chosen.append(i)
            taken |= own[i]
    return sorted(chosen)


def late_maps(maps: HeatMaps, names: Sequence[str]) -> Tensor:
    """The maps of Eq. 6 with step j = 1, 2, … weighted by j squared, each less its lowest value: float32 `[words, h, w]`, at
    the recording's grid."""
    heat = maps.mask_inputs(list(names), None, maps.grid).time_weighted.clamp(min=0)
    return heat - heat.amin((1, 2), keepdim=True)


def won_places(late: Tensor, margin: float) -> list[float]:
    """Of each of `[words, h, w]` (at least two), the part of all places where it exceeds the strongest other by `margin` of
    the highest value of all."""
    least = margin * late.max()
    return [float((late[i] - _others(late, i) > least).float().mean()) for i in range(len(late))]


def led_places(late: Tensor, margin: float) -> NDArray[np.float64]:
    """Of every two of `[words, h, w]`, the part of all places where one exceeds the other by `margin` of the highest value of
    all, of the one that does so at fewer: float64 `[words, words]`, 0..1."""
    flat = late.flatten(1)
    least = margin * flat.max()
    leads = torch.stack([((one - flat) > least).double().mean(1) for one in flat])
    found: NDArray[np.float64] = torch.minimum(leads, leads.T).numpy()
    return found


def _others(late: Tensor, index: int) -> Tensor:
    return torch.cat([late[:index], late[index + 1 :]]).amax(0)


def _strongest(late: Tensor) -> list[int]:
    """Of each word, the index of the other one that is hottest where this one is hottest."""
    found = []
    for i in range(len(late)):
        column = late.flatten(1)[:, int(late[i].argmax())].clone()
        column[i] = -1.0
        found.append(int(column.argmax()))
    return found


def _overlaps(masks: Tensor) -> NDArray[np.float32]:
    """IoU of every two masks `[n, h, w]`: float32 `[n, n]`, 0 where both are empty."""
    flat = masks.flatten(1).float()
    both = flat @ flat.T
    size = flat.sum(1)
    either = size[:, None] + size[None] - both
    found: NDArray[np.float32] = torch.where(either > 0, both / either.clamp(min=1), 0.0).numpy()
    return found
