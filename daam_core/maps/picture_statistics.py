"""`maps.statistics()`: the figures of `statistics` about one picture, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor

from ..prompt.search import several
from ..types import Size
from .prompt_report import PromptReport, prompt_report
from .relations import LeaningWord, leanings
from .statistics import RankedWord, above_negative, box_region, difference, mean_probability, rank_region, share

if TYPE_CHECKING:
    from .heatmaps import HeatMaps


@dataclass(frozen=True, eq=False)
class Statistics:
    """Figures about the maps of one picture, of the prompt's side: what `maps.statistics()` gives.

    Attributes:
        maps: the picture's maps.
    """

    maps: HeatMaps

    def share(self, words: Sequence[str] | None = None, size: Size | None = None) -> Tensor:
        """Each word's share of the attention at each position, among the chosen words: `D_k / sum over chosen words of D`.

        Args:
            words: content words by default.
            size: (height, width); the finest recorded resolution by default.

        Returns:
            float32 `[words, h, w]`, 0..1, sums to 1 over the words; 0 where none of them got any attention.

        Raises:
            WordNotFound: the prompt has no such word.

        Example:
            >>> share = maps.statistics().share(["house", "tree"])
            >>> tuple(share.shape), bool((share.sum(0) - 1).abs().max() < 1e-5)
            ((2, 4, 8), True)
        """
        return share(self.maps, words, size)

    def mean_probability(self, words: Sequence[str] | None = None, size: Size | None = None) -> Tensor:
        """The probability that a position attends to a word, mean over heads, layers and steps: `D_k / number of terms`.

        Args:
            words: all words of the prompt by default.
            size: (height, width); the finest recorded resolution by default.

        Returns:
            float32 `[words, h, w]`, 0..1 but for bicubic overshoot.

        Raises:
            WordNotFound: the prompt has no such word.

        Example:
            >>> every = maps.statistics().mean_probability([*maps.words, "<start>", "<end>", "<padding>"])
            >>> bool((every.sum(0) - 1).abs().max() < 0.02)  # whatever a position attends to, it adds up to 1
            True
        """
        return mean_probability(self.maps, words, size)

    def above_negative(self, word: str, size: Size | None = None) -> Tensor:
        """A word's mean probability above that of the negative prompt's words at the same position.

        Returns:
            float32 `[h, w]`, -1..1.

        Raises:
            BadArgument: the negative prompt was not recorded.
            WordNotFound: the prompt has no such word.

        Example:
            >>> tuple(maps.statistics().above_negative("house", size=(32, 64)).shape)
            (32, 64)
        """
        return above_negative(self.maps, word, size)

    def difference(self, before: HeatMaps, word: str, size: Size | None = None) -> Tensor:
        """Where a word gained (> 0) and lost (< 0) attention since another recording, in mean probability.

        Returns:
            float32 `[h, w]`, -1..1.

        Raises:
            WordNotFound: one of the prompts has no such word.

        Example:
            >>> float(maps.statistics().difference(maps, "house").abs().max())
            0.0
        """
        return difference(self.maps, before, word, size)

    def rank(self, region: Tensor | NDArray[Any], words: Sequence[str] | None = None) -> list[RankedWord]:
        """Which words drive a region, strongest first; see `rank_region`.

        Args:
            region: bool or 0..1 weights `[H, W]` over the picture.
            words: candidates; the content words by default.

        Raises:
            BadArgument: the region is empty.
            WordNotFound: the prompt has no such word.

        Example:
            >>> ranked = maps.statistics().rank(maps.mask("house", "threshold"))
            >>> sorted(one.word for one in ranked)
            ['green', 'house', 'red', 'tree']
        """
        return rank_region(self.maps, region, words)

    def rank_box(self, x: int, y: int, width: int, height: int, words: Sequence[str] | None = None) -> list[RankedWord]:
        """The same for a rectangle of the picture in pixels, cut to the picture.

        Raises:
            BadArgument: nothing of it lies in the picture.
            WordNotFound: the prompt has no such word.

        Example:
            >>> [one.word for one in maps.statistics().rank_box(0, 0, 16, 32, words=["house"])]
            ['house']
        """
        return rank_region(self.maps, box_region(self.maps, x, y, width, height), words)

    def report(self, words: Sequence[str] | None = None) -> PromptReport:
        """What each word did to the picture: share, peak, spread, the word it overlaps with most; objects that may be
        missing, and pairs that share their places (see `prompt_report`).

        Args:
            words: content words by default.

        Raises:
            WordNotFound: the prompt has no such word.

        Example:
            >>> report = maps.statistics().report()
            >>> [one.word for one in report.words]
            ['red', 'house', 'green', 'tree']
            >>> round(sum(one.share for one in report.words), 4)
            1.0
        """
        return prompt_report(self.maps, words)

    def leaning(self, words: Sequence[str] | None = None) -> list[LeaningWord]:
        """What each word leans on most (text->text): the other word that it attends to most, how much, and how much to itself.

        Args:
            words: content words by default.

        Raises:
            DetailMissing: text->text was not recorded; the text says how to.
            WordNotFound: the prompt has no such word.

        Example:
            >>> maps.statistics().leaning()
            Traceback (most recent call last):
            daam_core.errors.DetailMissing: What the text attended to was not recorded. Record with ...
        """
        names = self.maps.default_words() if words is None else several(words)
        return leanings(names, self.maps.word_matrix(names))
