"""What `HeatMaps` is asked about words: which there are, and the map of each.

The examples are about the recording of `heatmaps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from ..errors import BadArgument, WordNotFound
from ..prompt.prompt import Word
from ..types import Grid, Size
from .picture_sides import PictureSides
from .word_maps import default_words, find, step_maps, upscaled, word_levels


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

    def heat_map(self, query: str | Word, size: Size | None = None, frames: int | None = None) -> Tensor:
        """The heat map of one word or phrase, Eq. 6: `D_k[x, y] = sum over layers i, steps j, heads l of F_k^(i,j,l)[x, y]`.

        Args:
            query: a word (`"house"`), a repeated one (`"house#2"`), a phrase (`"red house"`), or `"<start>"`,
                `"<end>"`, `"<padding>"`. Upper and lower case are the same. Or a `Word` of the prompt.
            size: (height, width) to upscale to, bicubic; None is the finest recorded resolution.
            frames: of a video, how many frames its map is to have, such as those of the video itself, `len(maps.video)`; linear
                between the recorded ones (see `Frames.places`). None is the recorded (latent) ones.

        Returns:
            float32 `[h, w]`, non-negative but for bicubic undershoot; attention summed over heads, layers, steps. Of a video
            (`maps.num_frames` above 1) `[frames, h, w]`.

        Raises:
            WordNotFound: the prompt has no such word; the text lists those it has.
            BadArgument: a size below one pixel, frames of a picture, or more than can be held at once.

        Example:
            >>> heat = maps.heat_map("house", size=(32, 64))
            >>> tuple(heat.shape), heat.dtype
            ((32, 64), torch.float32)
            >>> maps.heat_map("zebra")
            Traceback (most recent call last):
            daam_core.errors.WordNotFound: 'zebra' is not in the prompt. Its words are: a, red, house, and, a#2, green, tree.
        """
        return self.heat_maps([query], size, frames)[0]

    def heat_maps(
        self, queries: Sequence[str | Word] | None = None, size: Size | None = None, frames: int | None = None
    ) -> Tensor:
        """The maps of several words in one call, as `heat_map` gives each.

        Args:
            queries: words and phrases; all words of the prompt by default.
            size: (height, width); None is the finest recorded resolution.
            frames: as in `heat_map`.

        Returns:
            float32 `[words, h, w]`; of a video `[words, frames, h, w]`.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: a size below one pixel, frames of a picture, or more than can be held at once.

        Example:
            >>> tuple(maps.heat_maps(["house", "green tree"], size=(32, 64)).shape)
            (2, 32, 64)
        """
        levels = self._levels(self.sums, self.words if queries is None else queries)
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
        """`"house" in maps`: whether the prompt has a word or phrase."""
        try:
            self.prompt.find(query)  # type: ignore[arg-type]
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
        if not isinstance(index, int) or not -len(tokens) <= index < len(tokens):
            raise BadArgument(f"There is no token {index!r}: the prompt has {len(tokens)}, counted from 0.")
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
        return step_maps(self.positive, self.prompt.find(query), self._checked(size))

    def _checked(self, size: Size | None) -> Size:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise BadArgument(f"size is (height, width) in pixels, both at least 1, not {size}.")
        return size or self.grid

    def _levels(self, channels: Mapping[Grid, Tensor], queries: Sequence[str | Word]) -> list[Tensor]:
        return word_levels(channels, [find(self.positive, query) for query in queries], self.aggregation)
