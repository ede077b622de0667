"""What `HeatMaps` is asked about words: which there are, and the map of each.

The examples are about the recording of `heatmaps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, DetailMissing, WordNotFound, quoted
from ..masks.validate import checked_size
from ..prompt.concepts import ConceptWord
from ..prompt.encoders import of_encoder, word_of_encoder
from ..prompt.prompt import Word
from ..prompt.search import listed, several
from ..types import Grid, Side, Size
from .data import LIKELY
from .picture_sides import PictureSides
from .word_maps import default_words, find, step_maps, upscaled, word_levels

PRESENCE_NOTE = (
    "A concept's map lights the object that fits best, whether it is there or not; likely and unlikely come from its peak "
    "among eleven other things, chosen on the model inside; on kinds of picture that it was not trained on they are chance."
)
"""What a person is told beside the scores."""


@dataclass(frozen=True)
class Presence:
    """Whether a concept is in a picture, as far as the attention can tell: no yes or no.

    Attributes:
        score: how far its share among the prompt's words and eleven other things stands out at its hottest places, `1 - mean /
            mean of the hottest 3 %`; heads that tell places apart and the last steps weigh more; 0..1.
        likely: from this score on it is more likely there than not.
    """

    score: float
    likely: float = LIKELY

    @property
    def word(self) -> Literal["likely", "unlikely"]:
        """The score in a word."""
        return "likely" if self.score >= self.likely else "unlikely"


class WordQueries(PictureSides):
    """The words of `HeatMaps` and their maps."""

    @property
    def words(self) -> list[str]:
        """The prompt's words as labels, repeated ones numbered: `['a', 'red', 'house', 'and', 'a#2', …]`."""
        return self.prompt.labels

    @property
    def content_words(self) -> list[str]:
        """The words without articles, prepositions, punctuation: what people want to see."""
        return self.prompt.content_words()

    def default_words(self, most: int | None = None) -> list[str]:
        """The words that are shown where nobody chose any: the content words, or all words where there are none of these.

        Args:
            most: at most so many, those with the most attention; None is all.

        Returns:
            Labels, in the prompt's order.

        Example:
            >>> maps.default_words()
            ['red', 'house', 'green', 'tree']
            >>> len(maps.default_words(most=2))
            2
        """
        return default_words(self, most)

    @property
    def grid(self) -> Grid:
        """(h, w) of the finest recorded resolution."""
        return max(self.sums, key=lambda g: g[0] * g[1])

    @property
    def encoders(self) -> list[str]:
        """The text encoders whose readings of a word can be told apart, such as `["CLIP", "T5"]` of SD3; none where a model has
        one, or several that share their columns.

        Example:
            >>> maps.encoders
            []
        """
        return self.prompt.encoders

    def heat_map(
        self, query: str | Word, size: Size | None = None, frames: int | None = None, encoder: str | None = None
    ) -> Tensor:
        """The heat map of one word or phrase, Eq. 6: `D_k[x, y] = sum over layers i, steps j, heads l of F_k^(i,j,l)[x, y]`.

        Args:
            query: a word (`"house"`), a repeated one (`"house#2"`), a phrase (`"red house"`), or `"<start>"`,
                `"<end>"`, `"<padding>"`. Upper and lower case are the same. Or a `Word` of the prompt.
            size: (height, width) to upscale to, bicubic; None is the finest recorded resolution.
            frames: of a video, how many frames its map is to have, such as those of the video itself, `len(maps.video)`; linear
                between the recorded ones (see `Frames.places`). None is the recorded (latent) ones.
            encoder: one of `maps.encoders`: the tokens of the word that this text encoder read. None is all of them, summed.

        Returns:
            float32 `[h, w]`, non-negative but for bicubic undershoot; attention summed over heads, layers, steps. Of a video
            (`maps.num_frames` above 1) `[frames, h, w]`.

        Raises:
            WordNotFound: the prompt has no such word, or the encoder did not read it; the text lists those it has.
            BadArgument: a size below one pixel, frames of a picture, more than can be held at once, or no such encoder.

        Example:
            >>> heat = maps.heat_map("house", size=(32, 64))
            >>> tuple(heat.shape), heat.dtype
            ((32, 64), torch.float32)
            >>> maps.heat_map("zebra")
            Traceback (most recent call last):
            daam_core.errors.WordNotFound: 'zebra' is not in the prompt. Its words are: a, red, house, and, a#2, green, tree....
        """
        return self.heat_maps([query], size, frames, encoder)[0]

    def heat_maps(
        self,
        queries: str | Word | Iterable[str | Word] | None = None,
        size: Size | None = None,
        frames: int | None = None,
        encoder: str | None = None,
    ) -> Tensor:
        """The maps of several words in one call, as `heat_map` gives each.

        Args:
            queries: words and phrases; all words of the prompt by default. A text alone is one of them.
            size: (height, width); None is the finest recorded resolution.
            frames: as in `heat_map`.
            encoder: as in `heat_map`; all words are then those that it read.

        Returns:
            float32 `[words, h, w]`; of a video `[words, frames, h, w]`.

        Raises:
            WordNotFound: the prompt has no such word, or the encoder did not read it.
            BadArgument: a size below one pixel, frames of a picture, more than can be held at once, or no such encoder.

        Example:
            >>> tuple(maps.heat_maps(["house", "green tree"], size=(32, 64)).shape)
            (2, 32, 64)
        """
        wanted: Sequence[str | Word] = self.words if queries is None else several(queries)
        if encoder is not None:
            prompt = self.prompt
            words = of_encoder(prompt, encoder).labels if queries is None else wanted
            wanted = [word_of_encoder(prompt, prompt.find(query), encoder) for query in words]
        levels = self._levels("sums", wanted)
        return upscaled(levels, self._checked(size), self.frames, frames)

    def __getitem__(self, query: str | Word) -> Tensor:
        """`maps["house"]`: the heat map of a word or phrase at the finest recorded resolution, float32 `[h, w]`.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the query is no text; `maps.token(i)` is a token's map.

        Example:
            >>> bool((maps["red house"] - maps["red"] - maps["house"]).abs().max() < 1e-5)
            True
        """
        return self.heat_map(query)

    def __contains__(self, query: object) -> bool:
        """`"house" in maps`: whether the prompt has a word or phrase, or it was recorded as a concept."""
        try:
            self._find(query)  # type: ignore[arg-type]
        except (WordNotFound, BadArgument):
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        """The words' labels: `for word in maps: maps[word]`."""
        return iter(self.words)

    def token(self, index: int, size: Size | None = None) -> Tensor:
        """The heat map of one token of the prompt, as its text encoder cut it.

        Args:
            index: from 0, in `maps.prompt.tokens`; negative ones count from the end. Start, end and padding are no tokens of
                the prompt: `maps.heat_map("<start>")`.
            size: (height, width); None is the finest recorded resolution.

        Returns:
            float32 `[h, w]`.

        Raises:
            BadArgument: there is no such token.

        Example:
            >>> maps.prompt.tokens[2].text
            'house'
            >>> bool((maps.token(2) == maps["house"]).all())
            True
        """
        tokens = self.prompt.tokens
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not -len(tokens) <= index < len(tokens):
            raise BadArgument(f"There is no token {quoted(index)}: the prompt has {len(tokens)}, counted from 0.")
        token = tokens[index]
        return self.heat_map(Word(f"token {index}", token.text, (token.channel,)), size)

    def steps_of(self, query: str | Word, size: Size | None = None) -> Tensor:
        """A word's map in every step by itself: Eq. 6 without the sum over steps j.

        Args:
            query: a word or phrase.
            size: (height, width); None is the finest recorded resolution.

        Returns:
            float32 `[steps, h, w]`; steps are kept in float16, so three digits are right. Their sum is `heat_map`; of a
            video, its mean over the frames.

        Raises:
            DetailMissing: steps were not kept apart: record with `trace(pipe, keep="steps")`.
            WordNotFound: the prompt has no such word.

        Example:
            >>> steps = maps.steps_of("house")
            >>> tuple(steps.shape)
            (2, 4, 8)
            >>> bool((steps.sum(0) - maps["house"]).abs().max() < 0.01)
            True
        """
        if self.is_concept(query):
            raise DetailMissing(
                f"The steps of a concept ({quoted(query, 60)}) are not kept apart; those of the prompt's words are."
            )
        return step_maps(self.positive, self.prompt.find(query), self._checked(size))

    def _checked(self, size: Size | None) -> Size:
        return self.grid if size is None else checked_size(size)

    # -- concepts ---------------------------------------------------------------------------------------------------

    @property
    def concepts(self) -> list[str]:
        """What was recorded although the prompt does not hold it: `trace(pipe, concepts=["sky"])`; see `presence`.

        Example:
            >>> maps.concepts
            ['sun']
        """
        side = self.sides.get("concepts")
        return [] if side is None else side.prompt.labels

    def presence(self, concept: str) -> Presence:
        """Whether a concept is in the picture: its map lights the object that fits best, also where none does.

        Raises:
            WordNotFound: no such concept was recorded, or it is a word of the prompt.

        Example:
            >>> found = maps.presence("sun")
            >>> 0 <= found.score <= 1, found.word
            (True, 'unlikely')
        """
        side = self.sides.get("concepts")
        if side is None or side.presence is None or not isinstance(concept, (str, ConceptWord)):
            raise WordNotFound(f"{quoted(concept, 80)} was not recorded as a concept. Record with `trace(pipe, concepts=[…])`.")
        return Presence(side.presence[side.prompt.find(concept).channels[0] - 1], side.likely)

    def caption(self, query: str | Word) -> str:
        """What stands under a picture of a word's map: its name, and for a concept that the prompt does not hold it and how
        likely it is in the picture.

        Example:
            >>> maps.caption("house")
            'house'
            >>> maps.caption("sun").startswith("sun: unlikely 0.")
            True
        """
        name = query.label if isinstance(query, Word) else query
        if not self.is_concept(query):
            return name
        found = self.presence(name)
        return f"{name}: {found.word} {found.score:.2f}, not in the prompt"

    def sheet_title(self, words: Sequence[str]) -> str:
        """What stands above a sheet of some words: the prompt, and how likely each concept among them is in the picture.

        Example:
            >>> maps.sheet_title(["house", "sun"])
            'a red house and a green tree · not in the prompt: sun (unlikely, 0.05)'
        """
        scores = [(word, self.presence(word)) for word in several(words) if self.is_concept(word)]
        if not scores:
            return self.prompt.text
        listed = ", ".join(f"{word} ({found.word}, {found.score:.2f})" for word, found in scores)
        return f"{self.prompt.text} · not in the prompt: {listed}"

    def competitors(self, query: str | Word) -> list[str]:
        """The words that a mask competes with where nobody names any: the last word of every other noun group of the prompt.

        Example:
            >>> maps.competitors("house"), maps.competitors("sun")
            (['tree'], ['house', 'tree'])
        """
        return self.prompt.rivals(None if self.is_concept(query) else query)

    def is_concept(self, query: str | Word) -> bool:
        """Whether a query means a recorded concept, not a word of the prompt.

        Example:
            >>> maps.is_concept("sun"), maps.is_concept("house")
            (True, False)
        """
        return self._find(query)[0] == "concepts"

    def _find(self, query: str | Word) -> tuple[Side, Word]:
        """A word of the prompt, else a concept; a `ConceptWord` is that concept.

        Raises:
            WordNotFound: neither; the text lists what there is.
        """
        if isinstance(query, ConceptWord):
            return "concepts", query
        try:
            return "prompt", find(self.positive, query)
        except WordNotFound as error:
            side = self.sides.get("concepts")
            if side is None or isinstance(query, Word):
                raise
            try:
                return "concepts", find(side, query)
            except WordNotFound:
                raise WordNotFound(f"{error} Recorded concepts: {listed(side.prompt.labels)}.") from None

    def _levels(self, part: Literal["sums", "time_weighted"], queries: Sequence[str | Word]) -> list[Tensor]:
        """float32 `[words, h, w]` of every resolution, by Eq. 6 or with late steps weighing more."""
        found = [self._find(query) for query in queries]
        levels = word_levels(getattr(self.positive, part), [word for side, word in found if side == "prompt"], self.aggregation)
        wanted = [word for side, word in found if side == "concepts"]
        if not wanted:
            return levels
        channels = getattr(self.sides["concepts"], part)
        order = sorted(range(len(found)), key=lambda i: found[i][0] == "concepts")
        back = torch.tensor(order).argsort()
        grids = list(getattr(self.positive, part))
        # A concept's share is level where neither it nor the prompt's words are: Eq. 7 is about what stands out of that.
        own = {
            grid: _above_base(word_levels({grid: channels[grid]}, wanted, "sum")[0])
            if grid in channels
            else torch.zeros(len(wanted), *grid)
            for grid in grids
        }
        return [torch.cat([level, own[grid]])[back] for grid, level in zip(grids, levels, strict=True)]


def _above_base(maps: Tensor) -> Tensor:
    """Maps `[..., h, w]` less the least value of each."""
    return maps - maps.amin((-1, -2), keepdim=True)
