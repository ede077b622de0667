"""`HeatMaps`: the one noun of DAAM Lens. Which word the model attended to, for every position of one picture.

In the examples, `maps` is a recording of "a red house and a green tree" with the negative prompt "blurry star", 2 steps of the
model inside at 32 x 64 pixels (height x width), made with `trace(pipe, keep=("layers", "steps", "heads"), negative=True)`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DetailMissing, WordNotFound
from ..masks.methods import MaskInputs, MaskResult, make_mask
from ..opencv import cv2
from ..prompt.prompt import Prompt, Word
from ..types import Grid, Image, Side, Size
from . import combine, safetensors_file, serialization, subset
from .aggregation import AGGREGATIONS
from .data import Aggregation as Aggregation
from .data import PromptSide, RecordedImage
from .picture_statistics import Statistics
from .relabel import relabel
from .serialization import RULES as RULES
from .word_maps import default_words, find, step_maps, word_levels


@dataclass(frozen=True, eq=False, repr=False)
class HeatMaps(PromptSide):
    """The heat maps of one picture: its two sides and the picture itself. Frozen: every verb returns a new value, and works on
    both sides.

    What is asked without naming a side (`maps.heat_map`, `maps.words`, `maps.sums`, …) is the prompt's; `maps.negative` is the
    same picture for the negative prompt.

    Attributes:
        sides: "prompt", and "negative" where the negative prompt was recorded.
        size: (height, width) of the picture in pixels.
        picture: uint8 `[H, W, 3]` RGB, where the picture is known.

    Example:
        >>> maps.words
        ['a', 'red', 'house', 'and', 'a#2', 'green', 'tree']
        >>> maps.size, maps.grid, maps.steps
        ((32, 64), (4, 8), 2)
        >>> maps
        HeatMaps('a red house and a green tree': 7 words, 64 x 32 pixels, grids 4x8 2x4 1x2, 2 steps, with negative)
    """

    sides: Mapping[Side, RecordedImage]
    size: Size
    picture: Image | None = None

    @cached_property
    def negative(self) -> HeatMaps | None:
        """The maps of the negative prompt over the same picture; None where it was not recorded.

        Example:
            >>> maps.negative.words
            ['blurry', 'star']
        """
        side = self.sides.get("negative")
        return None if side is None else HeatMaps({"prompt": side}, self.size, self.picture)

    def with_negative(self, negative: HeatMaps) -> HeatMaps:
        """The same maps, with those of another recording's prompt as the negative side."""
        return dataclasses.replace(self, sides={"prompt": self.positive, "negative": negative.positive})

    def each_side(self, change: Callable[[RecordedImage], RecordedImage]) -> HeatMaps:
        """The same picture with every side changed by a function."""
        return dataclasses.replace(self, sides={name: change(side) for name, side in self.sides.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held: the tensors of both sides and the picture."""
        picture = 0 if self.picture is None else int(self.picture.nbytes)
        return picture + sum(side.nbytes for side in self.sides.values())

    def __repr__(self) -> str:
        height, width = self.size
        grids = " ".join(f"{h}x{w}" for h, w in sorted(self.sums, reverse=True))
        both = ", with negative" if "negative" in self.sides else ""
        words = f"{self.prompt.text[:60]!r}: {len(self.words)} words"
        return f"HeatMaps({words}, {width} x {height} pixels, grids {grids}, {self.steps} steps{both})"

    # -- words -----------------------------------------------------------------------------------------------------

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

    def heat_map(self, query: str | Word, size: Size | None = None) -> Tensor:
        """The heat map of one word or phrase, Eq. 6: `D_k[x, y] = sum over layers i, steps j, heads l of F_k^(i,j,l)[x, y]`.

        Args:
            query: a word (`"house"`), a repeated one (`"house#2"`), a phrase (`"red house"`), or `"<start>"`,
                `"<end>"`, `"<padding>"`. Upper and lower case are the same. Or a `Word` of the prompt.
            size: (height, width) to upscale to, bicubic; None is the finest recorded resolution.

        Returns:
            float32 `[h, w]`, non-negative but for bicubic undershoot; attention summed over heads, layers, steps.

        Raises:
            WordNotFound: the prompt has no such word; the text lists those it has.
            BadArgument: a size below one pixel.

        Example:
            >>> heat = maps.heat_map("house", size=(32, 64))
            >>> tuple(heat.shape), heat.dtype
            ((32, 64), torch.float32)
            >>> maps.heat_map("zebra")
            Traceback (most recent call last):
            daam_core.errors.WordNotFound: 'zebra' is not in the prompt. Its words are: a, red, house, and, a#2, green, tree.
        """
        return self.heat_maps([query], size)[0]

    def heat_maps(self, queries: Sequence[str | Word] | None = None, size: Size | None = None) -> Tensor:
        """The maps of several words in one call, as `heat_map` gives each.

        Args:
            queries: words and phrases; all words of the prompt by default.
            size: (height, width); None is the finest recorded resolution.

        Returns:
            float32 `[words, h, w]`.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: a size below one pixel.

        Example:
            >>> tuple(maps.heat_maps(["house", "green tree"], size=(32, 64)).shape)
            (2, 32, 64)
        """
        levels = self._levels(self.sums, self.words if queries is None else queries)
        return bicubic(levels, self._checked(size))

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
            float32 `[steps, h, w]`; steps are kept in float16, so three digits are right. Their sum is `heat_map`.

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

    # -- choices ---------------------------------------------------------------------------------------------------

    def select(
        self,
        *,
        layers: Iterable[str | int] | None = None,
        steps: Iterable[int] | None = None,
        heads: Iterable[int] | None = None,
        grids: Iterable[Grid] | None = None,
    ) -> HeatMaps:
        """The same maps from a choice of layers, steps, heads or resolutions, on both sides. What is named twice counts once.

        The negative side is there where it has what is chosen: it may have other resolutions or fewer steps.

        Args:
            layers: positions in `maps.layers`, module paths, or "down", "mid", "up".
            steps: step numbers from 0; negative ones count from the end.
            heads: head numbers from 0.
            grids: resolutions (h, w).

        Raises:
            DetailMissing: the recording did not keep what is asked for; the text says how to record it.
            BadArgument: no such layer, step, head or resolution.

        Example:
            >>> late = maps.select(steps=[-1])
            >>> up = maps.select(layers=["up"], grids=[(4, 8)])
            >>> maps.select(steps=[0, 0, -2]).num_terms == maps.select(steps=[0]).num_terms
            True
        """
        if layers is None and steps is None and heads is None and grids is None:
            return self
        asked = subset.Choice(*(None if x is None else tuple(x) for x in (layers, steps, heads, grids)))  # type: ignore[arg-type]
        sides: dict[Side, RecordedImage] = {"prompt": subset.select(self.positive, asked)}
        if "negative" in self.sides:
            with contextlib.suppress(DetailMissing, BadArgument):
                sides["negative"] = subset.select(self.sides["negative"], asked)
        return dataclasses.replace(self, sides=sides)

    # -- other rules and sides -------------------------------------------------------------------------------------

    def aggregate(self, aggregation: Aggregation, latent: int = 64) -> HeatMaps:
        """The maps by another aggregation of `AGGREGATIONS`, on both sides.

        Args:
            aggregation: "sum" is Eq. 6, as recorded; "castorini" the rule of the castorini/daam package.
            latent: that package's latent side, 64 or 96 positions.

        Raises:
            BadArgument: no such aggregation, or the maps were brought together by another one already.
            DetailMissing: heads were not kept apart, and the rule needs them.

        Example:
            >>> maps.aggregate("castorini").grid
            (64, 64)
        """
        if aggregation not in AGGREGATIONS:
            raise BadArgument(f"There is no aggregation {aggregation!r}; there are {', '.join(AGGREGATIONS)}.")
        return self.each_side(lambda side: AGGREGATIONS[aggregation](side, latent))

    def weighted_by_time(self) -> HeatMaps:
        """The maps with step j = 1, 2, … weighted by j squared, on both sides: late steps place an object better."""
        return self.each_side(lambda side: dataclasses.replace(side, sums=side.time_weighted))

    def __add__(self, other: HeatMaps) -> HeatMaps:
        """Two recordings of one picture as one: `base + refiner`. Eq. 6 over the layers, heads and steps of both.

        The picture is that of the second, where it has one; the negative side is there where both have it. `time_weighted`
        counts each recording's steps from 1. Steps, layers and heads stay apart where both have the same layers.

        Raises:
            BadArgument: other prompts or sizes, or maps of another aggregation than "sum".

        Example:
            >>> both = maps + maps
            >>> bool((both["house"] == 2 * maps["house"]).all()), both.steps
            (True, 4)
        """
        if not isinstance(other, HeatMaps):
            return NotImplemented
        if self.size != other.size:
            a, b = (f"{width} x {height}" for height, width in (self.size, other.size))
            raise BadArgument(f"Recordings of one size can be added; these are of {a} and {b} pixels.")
        sides = {name: combine.add(side, other.sides[name]) for name, side in self.sides.items() if name in other.sides}
        return HeatMaps(sides, self.size, self.picture if other.picture is None else other.picture)

    def with_prompt(self, prompt: Prompt, negative: Prompt | None = None) -> HeatMaps:
        """The words of maps that were recorded by column number, because nobody knew the words then.

        Args:
            prompt: the very text that the picture was made with, as its text encoder reads it.
            negative: the same of the negative prompt; without it that side stays as it is.

        Raises:
            BadArgument: the maps have words already, or the prompt has another number of columns than was recorded.

        Example:
            >>> maps.with_prompt(maps.prompt)
            Traceback (most recent call last):
            daam_core.errors.BadArgument: These maps have their words already; ...
        """
        given: dict[Side, Prompt | None] = {"prompt": prompt, "negative": negative}
        return dataclasses.replace(
            self, sides={n: relabel(side, words) if (words := given[n]) else side for n, side in self.sides.items()}
        )

    def with_picture(self, picture: Image | PIL.Image.Image) -> HeatMaps:
        """The same maps over a picture, which need not be of the size that was recorded.

        Args:
            picture: uint8 `[H, W, 3]` RGB, or a picture of Pillow.

        Raises:
            BadArgument: it is no picture.

        Example:
            >>> maps.with_picture(np.zeros((48, 96, 3), np.uint8)).mask("house").shape
            torch.Size([48, 96])
        """
        pixels = np.asarray(picture.convert("RGB") if isinstance(picture, PIL.Image.Image) else picture)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise BadArgument(f"A picture is uint8 [height, width, 3], not {pixels.dtype} {list(pixels.shape)}.")
        return dataclasses.replace(self, picture=pixels, size=(pixels.shape[0], pixels.shape[1]))

    # -- masks and files -------------------------------------------------------------------------------------------

    def mask(
        self,
        query: str | Word,
        method: str = "best",
        *,
        tau: float = DEFAULT_TAU,
        image: Image | None = None,
        competitors: Sequence[str] | None = None,
        size: Size | None = None,
    ) -> Tensor:
        """The mask of one word or phrase.

        Args:
            query: word or phrase.
            method: "best" (the product's default), "threshold" (Eq. 7: `D >= tau * max D`), "late", "otsu", "compete",
                "walk", "guided" or "grabcut"; see `MASK_METHODS`.
            tau: level as a share of the maximum, 0..1 (not used by "best" and "otsu").
            image: uint8 `[H, W, 3]` picture to snap to; the recorded one by default.
            competitors: the words it competes with; by default the last word of each other noun group of the prompt.
            size: (height, width) of the mask; the picture's by default.

        Returns:
            bool `[H, W]`.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: no such method, or tau outside 0..1.
            DetailMissing: the method needs the picture or self-attention, and the recording has none.

        Example:
            >>> mask = maps.mask("house", "threshold", tau=0.5)
            >>> mask.dtype, tuple(mask.shape)
            (torch.bool, (32, 64))
            >>> heat = maps.heat_map("house", maps.size)
            >>> bool((mask == (heat >= 0.5 * heat.max())).all())
            True
        """
        return self.mask_result(query, method, tau=tau, image=image, competitors=competitors, size=size).mask

    def mask_result(
        self,
        query: str | Word,
        method: str = "best",
        *,
        tau: float = DEFAULT_TAU,
        image: Image | None = None,
        competitors: Sequence[str] | None = None,
        size: Size | None = None,
    ) -> MaskResult:
        """As `mask`, with the name of the method that made it: a simpler one where the mask would contradict its map.

        Example:
            >>> result = maps.mask_result("house", "threshold")
            >>> result.method, tuple(result.mask.shape)
            ('threshold', (32, 64))
        """
        picture = self.picture if image is None else image
        if picture is not None and size is not None and picture.shape[:2] != tuple(size):
            picture = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA).astype(np.uint8)
        if size is None:
            size = self.size if picture is None else (picture.shape[0], picture.shape[1])
        names = [query, *(self.prompt.rivals(query) if competitors is None else competitors)]
        return make_mask(self.mask_inputs(names, picture, size), method, tau)

    def mask_inputs(self, names: Sequence[str | Word], picture: Image | None, size: Size) -> MaskInputs:
        """What the mask methods are given: of the word itself (the first of `names`) and of those it may compete with."""
        late = bicubic(self._levels(self.time_weighted, names), self.grid)
        walks = next(iter(self.self_attention.items())) if self.self_attention else None
        return MaskInputs(self._levels(self.sums, names), late, walks, picture, size)

    def overlay(self, query: str, **options: Any) -> PIL.Image.Image:
        """The heat of a word or phrase over the picture, with its name and a colour bar.

        Args:
            query: word or phrase.
            options: those of `render.overlay`: opacity, colormap, label, bar, top, theme, enlarge.

        Returns:
            A picture of Pillow, RGB; larger than the recorded picture by its caption, and enlarged where that is small.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the recording holds no picture (`with_picture` gives it one), or an option outside its range.

        Example:
            >>> maps.overlay("house", opacity=0.5).mode
            'RGB'
        """
        from ..render import word_overlay  # drawing needs maps only when it is asked for, and stands above them

        return PIL.Image.fromarray(word_overlay(self, query, **options))

    def contact_sheet(self, words: Sequence[str] | None = None, **options: Any) -> PIL.Image.Image:
        """The picture and the overlays of several words on one sheet, under the prompt.

        Args:
            words: the dozen strongest content words by default.
            options: those of `render.contact_sheet`: title, opacity, colormap, same_scale, columns, theme, enlarge.

        Returns:
            A picture of Pillow, RGB.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: the recording holds no picture, or the sheet would be larger than 8192 x 8192 pixels.

        Example:
            >>> sheet = maps.contact_sheet(["house", "tree"])
            >>> sheet.save("sheet.png")
        """
        from ..render import word_sheet

        return PIL.Image.fromarray(word_sheet(self, words, **options))

    def statistics(self) -> Statistics:
        """Figures about the maps: share, mean probability, words of a region, the prompt report.

        Example:
            >>> maps.statistics().report().words[0].word
            'red'
        """
        return Statistics(self)

    def _repr_html_(self) -> str:
        """What Jupyter shows: a small sheet of the strongest words."""
        from ..render import notebook_html

        return notebook_html(self)

    def save(self, path: str | Path) -> Path:
        """Write one `.safetensors` record with both sides and the picture.

        Args:
            path: the file; `.safetensors` is added to a name that does not end with it.

        Returns:
            The path that was written.

        Raises:
            CannotWrite: no such folder, no permission, disk full.

        Example:
            >>> path = maps.save("house")
            >>> path.name
            'house.safetensors'
            >>> bool((HeatMaps.load(path)["house"] == maps["house"]).all())
            True
        """
        return safetensors_file.write(path, *serialization.pack(self))

    @classmethod
    def load(cls, path: str | Path) -> HeatMaps:
        """Read a record that `save` wrote, of this version or of 0.1.0. Nothing but data is read: no pickle, no code.

        Raises:
            BadRecord: one sentence for anything that is not one of ours, whole, and of a version that is known.

        Example:
            >>> HeatMaps.load("nowhere")
            Traceback (most recent call last):
            daam_core.errors.BadRecord: There is no record at nowhere.
        """
        return cls(*serialization.unpack(*safetensors_file.read(path)))
