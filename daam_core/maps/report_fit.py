"""Chooses the thresholds of the prompt report on pictures of which somebody knows what they show.

They are chosen on one half of the pictures and counted on the other, so that the rates are those of new pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadArgument, quoted
from .prompt_report import ReportThresholds, late_maps, led_places, won_places

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

MOST_FALSE = 0.05
"""Part of the objects (pairs) that are there which may be called missing."""


@dataclass(frozen=True)
class Measured:
    """One picture: each noun's part of the places and whether it is there; each pair's (see `led_places`) and whether both
    are."""

    won: tuple[tuple[float, bool], ...]
    led: tuple[tuple[float, bool], ...]


@dataclass(frozen=True)
class Rates:
    """How often a rule speaks, on the pictures it was not chosen on.

    Attributes:
        cut: the threshold.
        found: part of the missing objects (incomplete pairs) that it names, 0..1; None where there are none.
        false: part of those that are there which it names, 0..1; None where there are none.
        missing, there: how many of each were counted.
    """

    cut: float
    found: float | None
    false: float | None
    missing: int
    there: int


@dataclass(frozen=True)
class ReportFit:
    """What `fit` chose, and the rates of both rules on the other half of the pictures."""

    thresholds: ReportThresholds
    words: Rates
    pairs: Rates

    def lines(self) -> list[str]:
        """Both rules as sentences."""
        return [_sentence("objects", self.words), _sentence("pairs", self.pairs)]


def measure(maps: HeatMaps, present: Mapping[str, bool], margin: float = ReportThresholds().margin) -> Measured:
    """What the rules look at in one picture; `present` tells of each word for an object whether the picture shows it.

    Raises:
        BadArgument: fewer than two words (one object alone has nothing to lose to), or two names of one object.
        WordNotFound: the prompt has no such word.
    """
    names = list(present)
    if len(names) < 2:
        raise BadArgument(f"The report compares objects: a picture needs at least two words, not {len(names)}.")
    own = [set(maps.prompt.find(name).channels) for name in names]
    shared = [(a, b) for b in range(len(names)) for a in range(b) if own[a] & own[b]]
    if shared:
        first, second = (names[i] for i in shared[0])
        raise BadArgument(f"{quoted(first, 60)} and {quoted(second, 60)} are names of one object; tell of it once.")
    late = late_maps(maps, names)
    won = tuple(zip(won_places(late, margin), present.values(), strict=True))
    led = led_places(late, margin)
    count = range(len(names))
    pairs = tuple((float(led[a, b]), present[names[a]] and present[names[b]]) for a in count for b in count if a < b)
    return Measured(won, pairs)


def fit(pictures: Sequence[Measured], most_false: float = MOST_FALSE) -> ReportFit:
    """Thresholds chosen on every other picture (the first, the third, …), their rates on the others.

    Each cut is the highest that names at most `most_false` of what is there.

    Raises:
        BadArgument: too few pictures, or nothing that is there among those to choose on.
    """
    if len(pictures) < 2:
        raise BadArgument(
            f"Thresholds are chosen on one half of the pictures and counted on the other; there is {len(pictures)}."
        )
    tune, report = pictures[::2], pictures[1::2]
    won = cut_below([value for one in tune for value in one.won], most_false)
    led = cut_below([value for one in tune for value in one.led], most_false)
    return ReportFit(
        ReportThresholds(won=won, led=led),
        rates([value for one in report for value in one.won], won),
        rates([value for one in report for value in one.led], led),
    )


def cut_below(values: Sequence[tuple[float, bool]], most_false: float) -> float:
    """The highest cut below which at most `most_false` of the values lie whose thing is there (`True`).

    Example:
        >>> cut_below([(0.1, False), (0.3, True), (0.4, True)], 0.0), cut_below([(0.3, True), (0.4, True)], 0.5)
        (0.3, 0.4)
    """
    there = sorted(value for value, is_there in values if is_there)
    if not there:
        raise BadArgument("None of the pictures to choose on shows what its prompt names; annotate more pictures.")
    return there[min(len(there) - 1, math.floor(most_false * len(there)))]


def rates(values: Sequence[tuple[float, bool]], cut: float) -> Rates:
    """How often "below `cut`" names what is missing and what is there."""
    missing = [value < cut for value, there in values if not there]
    there = [value < cut for value, is_there in values if is_there]
    return Rates(cut, _part(missing), _part(there), len(missing), len(there))


def _part(called: Sequence[bool]) -> float | None:
    return sum(called) / len(called) if called else None


def _sentence(what: str, found: Rates) -> str:
    def rate(part: float | None, count: int) -> str:
        return "none to count" if part is None else f"{part:.1%} of {count}"

    return (
        f"{what}: below {found.cut:.4f}; names {rate(found.found, found.missing)} that are missing and "
        f"{rate(found.false, found.there)} that are there"
    )
