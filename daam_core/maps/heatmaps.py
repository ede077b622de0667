"""`HeatMaps`: the one noun of DAAM Lens. Which word the model looked at, for every place of one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DetailMissing
from ..masks.methods import MaskInputs, make_mask
from ..prompt.prompt import Word
from ..types import Grid, Size
from . import aggregation as castorini
from . import safetensors_file as records
from . import serialization as serial
from . import subset as choices
from .data import RecordedImage

Aggregation = Literal["sum", "castorini"]
RULES: dict[Aggregation, str] = {"sum": "paper", "castorini": "castorini"}
"""What records and pages call them."""


@dataclass(frozen=True)
class HeatMaps(RecordedImage):
    """The heat maps of one picture. Frozen: every verb returns a new value.

    Everything a recording holds of the picture (see `RecordedImage`), and:

    Attributes:
        negative: the maps of the negative prompt, where recorded.
        aggregation: "sum" (Eq. 6) sums a word's tokens, "castorini" takes their mean.
        specials: whether the channels of start, end and padding are there (a choice of steps or layers has only words).
    """

    negative: HeatMaps | None = None
    aggregation: Aggregation = "sum"
    specials: bool = True

    @classmethod
    def from_run(cls, run: RecordedImage) -> HeatMaps:
        """Maps of what was recorded."""
        return cls(**{f.name: getattr(run, f.name) for f in dataclasses.fields(RecordedImage)})

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
        """
        return self.heat_maps([query], size)[0]

    def heat_maps(self, queries: Sequence[str | Word] | None = None, size: Size | None = None) -> Tensor:
        """The maps of several words in one call: float32 `[words, H, W]`; all words of the prompt by default."""
        levels = self._all_levels(self.sums, self.words if queries is None else queries)
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise BadArgument(f"size is (height, width) in pixels, both at least 1, not {size}.")
        return bicubic(levels, size or self.grid)

    def _all_levels(self, by_grid: dict[Grid, Tensor], queries: Sequence[str | Word]) -> list[Tensor]:
        """Native maps `[words, h, w]` of every resolution of `sums` or `late`."""
        found = [self._find(query) for query in queries]
        return [self._levels(channels, found) for channels in by_grid.values()]

    def _find(self, query: str | Word) -> Word:
        word = self.prompt.find(query)
        if not self.specials and {0, self.prompt.num_channels - 2, self.prompt.num_channels - 1}.intersection(word.channels):
            raise DetailMissing(f"{word.label} was not kept by layer and step; only the prompt's own words were.")
        return word

    def _levels(self, channels: Tensor, found: Sequence[Word]) -> Tensor:
        """`[channels, h, w]` -> `[words, h, w]`: a word of several tokens is their sum (or mean)."""
        merge = channels.new_zeros(len(found), channels.shape[0])
        for i, word in enumerate(found):
            merge[i, list(word.channels)] = 1.0 if self.aggregation == "sum" else 1.0 / len(word.channels)
        return (merge @ channels.flatten(1)).unflatten(1, channels.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held: all tensors, the picture, the maps of the negative prompt."""
        groups = (
            self.sums,
            self.time_weighted,
            self.heads,
            self.self_attention,
            None if self.detail is None else self.detail.values,
        )
        own = sum(int(x.nbytes) for group in groups if group for x in group.values())
        own += 0 if self.picture is None else int(self.picture.nbytes)
        return own + (0 if self.negative is None else self.negative.nbytes)

    # -- choices ---------------------------------------------------------------------------------------------------

    def select(
        self,
        *,
        layers: Iterable[str | int] | None = None,
        steps: Iterable[int] | None = None,
        heads: Iterable[int] | None = None,
        grids: Iterable[Grid] | None = None,
    ) -> HeatMaps:
        """The same maps from a choice of layers, steps, heads or resolutions.

        Args:
            layers: positions in `maps.layers`, module paths, or "down", "mid", "up".
            steps: step numbers from 0; negative ones count from the end.
            heads: head numbers from 0.
            grids: resolutions (h, w).

        Raises:
            DetailMissing: the recording did not keep what is asked for; the text says how to record it.
            BadArgument: no such layer, step, head or resolution.
        """
        if grids is not None:
            return self._of_grids(list(grids)).select(layers=layers, steps=steps, heads=heads)
        if layers is None and steps is None and heads is None:
            return self
        if heads is not None and steps is not None:
            raise DetailMissing("Heads are kept summed over steps: choose heads or steps, not both.")
        numbers = None if layers is None else choices.layer_numbers(self, layers)
        if heads is not None:
            part = choices.of_heads(self, range(len(self.layers)) if numbers is None else numbers, list(heads))
        else:
            part = choices.of_detail(self, numbers, None if steps is None else list(steps))
        return dataclasses.replace(
            self,
            sums=part.sums,
            time_weighted=part.sums,
            num_terms=part.num_terms,
            specials=part.specials,
            detail=None,
            heads=None,
        )

    def _of_grids(self, grids: list[Grid]) -> HeatMaps:
        if missing := [g for g in grids if g not in self.sums]:
            raise BadArgument(f"No attention of size {missing[0]} was recorded; there is {sorted(self.sums)}.")
        return dataclasses.replace(
            self,
            sums={g: self.sums[g] for g in grids},
            time_weighted={g: self.time_weighted[g] for g in grids},
            num_terms={g: self.num_terms[g] for g in grids},
        )

    # -- other rules and sides -------------------------------------------------------------------------------------

    def with_negative(self, negative: HeatMaps) -> HeatMaps:
        """The same maps, with those of the negative prompt beside them."""
        return dataclasses.replace(self, negative=negative)

    def as_castorini(self, side: int) -> HeatMaps:
        """The maps by the rule of the castorini/daam package at its latent size `side` (64 or 96 positions).

        Raises:
            DetailMissing: heads were not kept apart.
        """
        if self.heads is None:
            raise DetailMissing("castorini's rule clamps every head's map. Record with `trace(pipe, keep='heads')`.")
        level = castorini.mean_of_clamped(self.heads, self.layers, side)
        only = {(side, side): level}
        return dataclasses.replace(self, sums=only, time_weighted=only, num_terms={(side, side): 1}, aggregation="castorini")

    # -- masks and files -------------------------------------------------------------------------------------------

    def mask(
        self,
        query: str | Word,
        method: str = "best",
        *,
        tau: float = DEFAULT_TAU,
        image: NDArray[np.uint8] | None = None,
        competitors: Sequence[str] | None = None,
        size: Size | None = None,
    ) -> Tensor:
        """The mask of one word or phrase.

        Args:
            query: word or phrase.
            method: "best" (the product's default), "threshold" (Eq. 7: `D >= tau * max D`), "otsu", "compete", "walk",
                "guided" or "grabcut"; see `mask_methods.METHODS`.
            tau: level as a share of the maximum, 0..1 (not used by "best" and "otsu").
            image: uint8 `[H, W, 3]` picture to snap to; the recorded one by default.
            competitors: the words it competes with; by default the last word of each other noun group of the prompt.
            size: (height, width) of the mask; the picture's by default.

        Returns:
            bool `[H, W]`.

        Raises:
            WordNotFound, BadArgument; DetailMissing where the method needs what was not recorded.
        """
        picture = self.picture if image is None else image
        if picture is not None and size is not None and picture.shape[:2] != tuple(size):
            picture = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA).astype(np.uint8)
        if size is None:
            size = self.size if picture is None else (picture.shape[0], picture.shape[1])
        names = [query, *(self.prompt.rivals(query) if competitors is None else competitors)]
        levels = self._all_levels(self.sums, names)
        inputs = MaskInputs(
            levels, bicubic(self._all_levels(self.time_weighted, names), self.grid), self._walks(), picture, size
        )
        return make_mask(inputs, method, tau)

    def _walks(self) -> tuple[Grid, Tensor] | None:
        return next(iter(self.self_attention.items())) if self.self_attention else None

    def save(self, path: str | Path) -> Path:
        """Write one `.safetensors` record, the picture and the negative prompt's maps included. Raises CannotWrite."""
        tensors, header = serial.pack(self)
        header |= {"rule": RULES[self.aggregation], "specials": self.specials, "negative": None}
        if self.negative is not None:
            more, header["negative"] = serial.pack(dataclasses.replace(self.negative, picture=None))
            tensors |= {f"negative/{name}": x for name, x in more.items()}
        return records.write(path, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> HeatMaps:
        """Read a record. Raises BadRecord with one sentence for anything that is not one of ours, whole."""
        tensors, header = records.read(path)
        negative = None
        if header.get("negative") is not None:
            beside = {n.removeprefix("negative/"): x for n, x in tensors.items() if n.startswith("negative/")}
            negative = cls(**serial.unpack(beside, header["negative"]))
        aggregation: Aggregation = "castorini" if header.get("rule") == "castorini" else "sum"
        specials = bool(header.get("specials", True))
        return cls(**serial.unpack(tensors, header), negative=negative, aggregation=aggregation, specials=specials)
