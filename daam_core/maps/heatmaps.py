"""`HeatMaps`: the one noun of DAAM Lens. Which word the model attended to, for every position of one picture.

In the examples, `maps` is a recording of "a red house and a green tree" with the negative prompt "blurry", 2 steps of the model
inside at 64 x 64 pixels, made with `trace(pipe, keep=("layers", "steps", "heads"), negative=True)`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DetailMissing
from ..masks.methods import MaskInputs, MaskResult, make_mask
from ..prompt.prompt import Prompt, Word
from ..types import Grid, Image, Side, Size
from . import safetensors_file, serialization, subset
from .aggregation import AGGREGATIONS
from .data import Aggregation as Aggregation
from .data import PromptSide, RecordedImage
from .relabel import relabel
from .serialization import RULES as RULES
from .word_maps import find, word_levels

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class HeatMaps(PromptSide):
    """The heat maps of one picture: its two sides and the picture itself. Frozen: every verb returns a new value, and works on
    both sides.

    What is asked without naming a side (`maps.heat_map`, `maps.words`, `maps.sums`, …) is the prompt's; `maps.negative` is the
    same picture seen from the negative prompt.

    Attributes:
        sides: "prompt", and "negative" where the negative prompt was recorded.
        size: (height, width) of the picture in pixels.
        picture: uint8 `[H, W, 3]` RGB, where the picture is known.
    """

    sides: Mapping[Side, RecordedImage]
    size: Size
    picture: Image | None = None

    @cached_property
    def negative(self) -> HeatMaps | None:
        """The maps of the negative prompt over the same picture; None where it was not recorded."""
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

    # -- words -----------------------------------------------------------------------------------------------------

    @property
    def words(self) -> list[str]:
        """The prompt's words as labels, repeated ones numbered: `['a', 'red', 'house', 'and', 'a#2', …]`."""
        return self.prompt.labels

    @property
    def content_words(self) -> list[str]:
        """The words without articles, prepositions, punctuation: what people want to see."""
        return self.prompt.content_words()

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
        """
        return self.heat_maps([query], size)[0]

    def heat_maps(self, queries: Sequence[str | Word] | None = None, size: Size | None = None) -> Tensor:
        """The maps of several words in one call: float32 `[words, H, W]`; all words of the prompt by default."""
        levels = self._levels(self.sums, self.words if queries is None else queries)
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise BadArgument(f"size is (height, width) in pixels, both at least 1, not {size}.")
        return bicubic(levels, size or self.grid)

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
        """
        if aggregation not in AGGREGATIONS:
            raise BadArgument(f"There is no aggregation {aggregation!r}; there are {', '.join(AGGREGATIONS)}.")
        return self.each_side(lambda side: AGGREGATIONS[aggregation](side, latent))

    def weighted_by_time(self) -> HeatMaps:
        """The maps with step j = 1, 2, … weighted by j squared, on both sides: late steps place an object better."""
        return self.each_side(lambda side: dataclasses.replace(side, sums=side.time_weighted))

    def with_prompt(self, prompt: Prompt, negative: Prompt | None = None) -> HeatMaps:
        """The words of maps that were recorded by column number, because nobody knew the words then.

        Args:
            prompt: the very text that the picture was made with, as its text encoder reads it.
            negative: the same of the negative prompt; without it that side stays as it is.

        Raises:
            BadArgument: the maps have words already, or the prompt has another number of columns than was recorded.
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
            WordNotFound, BadArgument; DetailMissing where the method needs what was not recorded.
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
        """As `mask`, with the name of the method that made it: a simpler one where the mask would contradict its map."""
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

    def save(self, path: str | Path) -> Path:
        """Write one `.safetensors` record, both sides and the picture. Raises CannotWrite."""
        return safetensors_file.write(path, *serialization.pack(self))

    @classmethod
    def load(cls, path: str | Path) -> HeatMaps:
        """Read a record. Raises BadRecord with one sentence for anything that is not one of ours, whole."""
        return cls(*serialization.unpack(*safetensors_file.read(path)))
