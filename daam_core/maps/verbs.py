"""What makes other `HeatMaps` of one: choices, sums, other sides, words and pictures.

The examples are about the recording of `heatmaps`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import PIL.Image

from ..errors import BadArgument, DetailMissing, quoted
from ..masks.validate import checked_whole
from ..picture_files import picture_pixels
from ..prompt.encoders import of_encoder
from ..prompt.prompt import Prompt
from ..types import Grid, Image, Side, Video
from . import combine, subset
from .aggregation import AGGREGATIONS
from .data import Aggregation, RecordedImage
from .film import checked_video
from .picture_sides import PictureSides
from .relabel import relabel

M = TypeVar("M", bound="Verbs")
MOST_LATENT = 1024
"""Positions of the side of castorini's maps at most; its own are 64 and 96."""


class Verbs(PictureSides):
    """Methods of `HeatMaps` that give other `HeatMaps`; none changes its own."""

    @cached_property
    def negative(self: M) -> M | None:
        """The maps of the negative prompt over the same picture; None where it was not recorded.

        Example:
            >>> maps.negative.words
            ['blurry', 'star']
        """
        side = self.sides.get("negative")
        return None if side is None else dataclasses.replace(self, sides={"prompt": side})

    def with_negative(self: M, negative: M) -> M:
        """The same maps, with those of another recording's prompt as the negative side. Raises BadArgument for no maps."""
        if not isinstance(negative, Verbs):
            raise BadArgument(f"The negative side is that of other maps, not of {type(negative).__name__}.")
        return dataclasses.replace(self, sides={**self.sides, "negative": negative.positive})

    def each_side(self: M, change: Callable[[RecordedImage], RecordedImage]) -> M:
        """The same picture with every side changed by a function."""
        return dataclasses.replace(self, sides={name: change(side) for name, side in self.sides.items()})

    def select(
        self: M,
        *,
        layers: Iterable[str | int] | None = None,
        steps: Iterable[int] | None = None,
        heads: Iterable[int] | None = None,
        grids: Iterable[Grid] | None = None,
        frames: Iterable[int] | None = None,
        encoder: str | None = None,
    ) -> M:
        """The same maps from a choice of layers, steps, heads, resolutions, frames or text encoder, on both sides. What is
        named twice counts once.

        The negative side is there where it has what is chosen: it may have other resolutions or fewer steps. Concepts are there
        where only resolutions are chosen.

        Args:
            layers: positions in `maps.layers`, module paths, or "down", "mid", "up".
            steps: step numbers from 0; negative ones count from the end.
            heads: head numbers from 0.
            grids: resolutions (h, w).
            frames: of a video, frames of its maps from 0, in order; one of them is a picture, whose maps are `[h, w]`. Layers,
                steps and heads are kept as the mean over the frames, and cannot be chosen together with frames.
            encoder: one of `maps.encoders`: the words that this text encoder read, by its tokens alone. Start, end and padding
                stay those of all.

        Raises:
            DetailMissing: the recording did not keep what is asked for; the text says how to record it.
            BadArgument: no such layer, step, head, resolution, frame or encoder.

        Example:
            >>> late = maps.select(steps=[-1])
            >>> up = maps.select(layers=["up"], grids=[(4, 8)])
            >>> maps.select(steps=[0, 0, -2]).num_terms == maps.select(steps=[0]).num_terms
            True
        """
        if encoder is not None:
            return self._of_encoder(encoder).select(layers=layers, steps=steps, heads=heads, grids=grids, frames=frames)
        given = {"layers": layers, "steps": steps, "heads": heads, "grids": grids, "frames": frames}
        if all(x is None for x in given.values()):
            return self
        asked = subset.Choice(**{name: _chosen(name, x) for name, x in given.items()})
        sides: dict[Side, RecordedImage] = {"prompt": subset.select(self.positive, asked)}
        for name, side in self.sides.items():
            # Words leave room for different numbers of frames: a side that has others has nothing of this choice.
            if name != "prompt" and (asked.frames is None or side.frames == self.frames):
                with contextlib.suppress(DetailMissing, BadArgument):
                    sides[name] = subset.select(side, asked)
        if asked.frames is None or self.frames is None or self.video is None:
            return dataclasses.replace(self, sides=sides)
        numbers = self.frames.chosen(asked.frames)
        shown = self.video[[round(self.frames.places(len(self.video))[i]) for i in numbers]]
        video = shown if len(numbers) > 1 else None
        return dataclasses.replace(self, sides=sides, picture=shown[len(shown) // 2], video=video)

    def _of_encoder(self: M, name: str) -> M:
        """The words that one text encoder read; a side that it read no word of is left out."""
        sides: dict[Side, RecordedImage] = {}
        for side, image in self.sides.items():
            with contextlib.nullcontext() if side == "prompt" else contextlib.suppress(BadArgument):
                sides[side] = dataclasses.replace(image, prompt=of_encoder(image.prompt, name))
        return dataclasses.replace(self, sides=sides)

    def sum_frames(self: M) -> M:
        """The maps of a video as those of one picture: Eq. 6 summed over its latent frames, too. Those of a picture stay.

        Example:
            >>> maps.sum_frames() is maps
            True
        """
        if self.frames is None:
            return self
        return dataclasses.replace(self.each_side(subset.sum_frames), video=None)

    def aggregate(self: M, aggregation: Aggregation, latent: int = 64) -> M:
        """The maps by another aggregation of `AGGREGATIONS`, on both sides.

        Args:
            aggregation: "sum" is Eq. 6, as recorded; "castorini" the rule of the castorini/daam package; "output" how far the
                attention's output at each place agrees with the word's value; "anchor" how far it is that of the word's own
                peak. Maps of another aggregation than "sum" are of the prompts' words alone, not of concepts.
            latent: that package's latent side, 64 or 96 positions.

        Raises:
            BadArgument: no such aggregation or latent side, or the maps were brought together by another one already.
            DetailMissing: heads were not kept apart, or output space was not recorded, and the rule needs them.

        Example:
            >>> maps.aggregate("castorini").grid
            (64, 64)
        """
        if not isinstance(aggregation, str) or aggregation not in AGGREGATIONS:
            raise BadArgument(f"There is no aggregation {quoted(aggregation)}; there are {', '.join(AGGREGATIONS)}.")
        latent = checked_whole(latent, "latent", 1, MOST_LATENT)
        maps = self if aggregation == "sum" else self.without_concepts()
        return maps.each_side(lambda side: AGGREGATIONS[aggregation](side, latent))

    def without_concepts(self: M) -> M:
        """The same maps without what is not in the prompt.

        Example:
            >>> maps.without_concepts().concepts
            []
        """
        return dataclasses.replace(self, sides={name: side for name, side in self.sides.items() if name != "concepts"})

    def weighted_by_time(self: M) -> M:
        """The maps with step j = 1, 2, … weighted by j squared, on both sides: late steps place an object better."""
        return self.each_side(lambda side: dataclasses.replace(side, sums=side.time_weighted))

    def __add__(self: M, other: M) -> M:
        """Two recordings of one picture as one: `base + refiner`. Eq. 6 over the layers, heads and steps of both.

        The picture or video is that of the second, where it has one; the negative side is there where both have it.
        `time_weighted` counts each recording's steps from 1. Steps, layers and heads stay apart where both have the same
        layers.

        Raises:
            BadArgument: other prompts, sizes or frames, or maps of another aggregation than "sum".

        Example:
            >>> both = maps + maps
            >>> bool((both["house"] == 2 * maps["house"]).all()), both.steps
            (True, 4)
        """
        if not isinstance(other, Verbs):
            return NotImplemented
        if self.size != other.size:
            a, b = (f"{width} x {height}" for height, width in (self.size, other.size))
            raise BadArgument(f"Recordings of one size can be added; these are of {a} and {b} pixels.")
        sides = {name: combine.add(side, other.sides[name]) for name, side in self.sides.items() if name in other.sides}
        picture = self.picture if other.picture is None else other.picture
        video = self.video if other.video is None else other.video
        return dataclasses.replace(self, sides=sides, picture=picture, video=video)

    def with_prompt(self: M, prompt: Prompt, negative: Prompt | None = None) -> M:
        """The words of maps that were recorded by column number, because nobody knew the words then.

        Args:
            prompt: the very text that the picture was made with, as its text encoder reads it.
            negative: the same of the negative prompt; without it that side stays as it is.

        Raises:
            BadArgument: no prompt, the maps have words already, or the prompt has another number of columns than was recorded.

        Example:
            >>> maps.with_prompt(maps.prompt)
            Traceback (most recent call last):
            daam_core.errors.BadArgument: These maps have their words already; ...
        """
        if not isinstance(prompt, Prompt) or not (negative is None or isinstance(negative, Prompt)):
            odd = prompt if not isinstance(prompt, Prompt) else negative
            raise BadArgument(f"Words are given by a Prompt, as a text encoder reads it, not by {type(odd).__name__}.")
        given: dict[Side, Prompt | None] = {"prompt": prompt, "negative": negative}
        return dataclasses.replace(
            self,
            sides={n: side if (words := given.get(n)) is None else relabel(side, words) for n, side in self.sides.items()},
        )

    def with_picture(self: M, picture: Image | PIL.Image.Image) -> M:
        """The same maps over a picture, which need not be of the size that was recorded.

        Args:
            picture: uint8 `[H, W, 3]` RGB, or a picture of Pillow.

        Raises:
            BadArgument: it is no picture.

        Example:
            >>> maps.with_picture(np.zeros((48, 96, 3), np.uint8)).mask("house").shape
            torch.Size([48, 96])
        """
        pixels = picture_pixels(picture)
        size = (pixels.shape[0], pixels.shape[1])
        return dataclasses.replace(self, picture=pixels, size=size, video=self.video if size == self.size else None)

    def with_video(self: M, video: Video | Sequence[Image | PIL.Image.Image]) -> M:
        """The same maps of a video over its frames.

        Args:
            video: uint8 `[frames, H, W, 3]` RGB, or pictures, all of one size.

        Raises:
            BadArgument: they are no frames, larger than a recording may hold, or do not fit the maps' latent frames.

        Example:
            >>> maps.with_video(np.zeros((9, 48, 96, 3), np.uint8))
            Traceback (most recent call last):
            daam_core.errors.BadArgument: These maps are of one picture and not of a video: `with_picture` gives them one.
        """
        if self.frames is None or self.num_frames == 1:
            raise BadArgument("These maps are of one picture and not of a video: `with_picture` gives them one.")
        frames = checked_video(video)
        self.frames.places(len(frames))
        size = (frames.shape[1], frames.shape[2])
        return dataclasses.replace(self, video=frames, picture=frames[len(frames) // 2], size=size)


def _chosen(name: str, given: Iterable[Any] | None) -> tuple[Any, ...] | None:
    """What is chosen, with NumPy's whole numbers as Python's. Raises BadArgument for what is no list."""
    if given is None:
        return None
    try:
        if not isinstance(given, (str, bytes)):
            return tuple(int(x) if isinstance(x, np.integer) else x for x in given)
    except TypeError:
        pass
    raise BadArgument(f"{name} takes a list of what to choose, such as {name}=[…], not {quoted(given, 60)}.")
