"""What changed between two recordings of one prompt and seed, word by word: another LoRA, weight, sampler or model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument
from ..prompt.search import several
from ..types import Size
from .statistics import difference, mean_probability
from .word_maps import default_words, each_once

if TYPE_CHECKING:
    import PIL.Image

    from .heatmaps import HeatMaps


@dataclass(frozen=True)
class WordChange:
    """What changed for one word.

    Attributes:
        word: its label.
        moved: the part of its heat that lies somewhere else, 0 (all at the same places) .. 1 (none): see `moved`.
        before, after: its mean probability over the picture in each recording, 0..1.
        gained, lost: what it gained where it gained, and lost where it lost, as means over the picture; `after - before` is
            their difference.
        rose: part of the picture where it gained, 0..1.
    """

    word: str
    moved: float
    before: float
    after: float
    gained: float
    lost: float
    rose: float

    def line(self) -> str:
        """One line for people."""
        return (
            f"{self.word}: {self.moved:.1%} of its heat lies elsewhere; rose over {self.rose:.0%} of the picture, mean gain "
            f"{self.gained:.2e}, mean loss {self.lost:.2e} (mean {self.before:.2e} before, {self.after:.2e} after)"
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two recordings side by side: what `maps.compare(before)` gives. Of videos, the sum of the frames.

    Attributes:
        after, before: the recordings.
        changes: of each word, in the prompt's order.
    """

    after: HeatMaps
    before: HeatMaps
    changes: tuple[WordChange, ...]

    @property
    def moved(self) -> float:
        """Mean of `moved` over the words, 0..1: one number for how much the LoRA (or whatever changed) moved."""
        return sum(change.moved for change in self.changes) / len(self.changes)

    def lines(self) -> list[str]:
        """The words with the most movement first, then all of them in one line."""
        ordered = sorted(self.changes, key=lambda change: change.moved, reverse=True)
        lines = [change.line() for change in ordered]
        return [*lines, f"All {len(lines)} words: {self.moved:.1%} of their heat lies elsewhere."] if len(lines) > 1 else lines

    def difference(self, word: str, size: Size | None = None) -> Tensor:
        """Where a word gained (> 0) and lost (< 0): float32 `[h, w]`, -1..1, in mean probability; at the finest recorded
        resolution, or at (height, width).

        Raises:
            WordNotFound: one of the prompts has no such word.
        """
        return difference(self.after, self.before, word, size)

    def overlay(self, word: str, opacity: float = DEFAULT_OPACITY) -> PIL.Image.Image:
        """The signed map of a word over the later picture: orange where it gained, blue where it lost.

        Raises:
            WordNotFound: one of the prompts has no such word.
            BadArgument: the later recording holds no picture.
        """
        import PIL.Image

        from ..render import difference as drawn

        if self.after.picture is None:
            raise BadArgument("The recording holds no picture to draw on; give it one with `maps.with_picture(picture)`.")
        change = self.difference(word, self.after.size)
        return PIL.Image.fromarray(drawn(self.after.picture, change, opacity, word, True, unit="%"))


def compare(after: HeatMaps, before: HeatMaps, words: Sequence[str] | None = None) -> Comparison:
    """See `HeatMaps.compare`.

    Raises:
        WordNotFound: one of the prompts has no such word.
        BadArgument: the prompts share no word, or one picture is upright where the other is not.
    """
    if not isinstance(before, type(after)):
        raise BadArgument(f"A recording is compared with another one, not with {type(before).__name__}.")
    after, before = after.sum_frames(), before.sum_frames()
    if not _alike(after.size, before.size):
        raise BadArgument(
            f"These pictures have other proportions: {after.size[1]} x {after.size[0]} and {before.size[1]} x {before.size[0]} "
            "pixels. Places compare between pictures of one shape; make both at the same size and seed."
        )
    if words is None:
        words = [word for word in default_words(after) if word in before]
    words = several(words)
    if not words:
        raise BadArgument("The two prompts share no word to compare. Name words that stand in both.")
    return Comparison(after, before, tuple(_change(after, before, word) for word in each_once(after, words)))


def _alike(one: Size, other: Size) -> bool:
    """Whether two sizes have the same proportions, to a fiftieth."""
    return abs(one[0] * other[1] - other[0] * one[1]) * 50 <= max(one[0] * other[1], other[0] * one[1])


def _change(after: HeatMaps, before: HeatMaps, word: str) -> WordChange:
    new, old = (mean_probability(maps, [word], after.grid)[0] for maps in (after, before))
    change = new - old
    gained, lost = change.clamp(min=0), (-change).clamp(min=0)
    return WordChange(
        word,
        moved=moved(new, old),
        before=float(old.mean()),
        after=float(new.mean()),
        gained=float(gained.mean()),
        lost=float(lost.mean()),
        rose=float((change > 0).float().mean()),
    )


def moved(after: Tensor, before: Tensor) -> float:
    """The part of a map that lies somewhere else: half of `sum over places of |p - q|` (total variation).

    Args:
        after, before: `[h, w]` of one size; each is divided by its own sum, p and q, so that a word which only became stronger
            everywhere did not move. Values below 0 (bicubic undershoot) count as 0.

    Returns:
        0 (the same places) .. 1 (no place in common); 1 where one of the maps is empty and the other is not.

    Example:
        >>> import torch
        >>> moved(torch.tensor([[1.0, 1.0]]), torch.tensor([[4.0, 0.0]]))
        0.5
    """
    p, q = after.double().clamp(min=0), before.double().clamp(min=0)
    totals = float(p.sum()), float(q.sum())
    if not all(totals):
        return float(any(totals))
    return float((p / totals[0] - q / totals[1]).abs().sum()) / 2
