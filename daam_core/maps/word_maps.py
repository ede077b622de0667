"""From channels to words: a word's map is the sum (or mean) of its tokens' channels, at every recorded resolution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..attention.precision import full_precision
from ..attention.upsample import bicubic
from ..errors import BadArgument, DetailMissing, quoted
from ..masks.validate import checked_whole
from ..prompt.prompt import Word
from ..prompt.search import several
from ..types import Grid, Size
from .aggregation import token_weight
from .data import Aggregation, RecordedImage
from .frames import Frames, at_frames

if TYPE_CHECKING:
    from .queries import WordQueries

MOST_FRAMES = 4096
"""Of a video at once."""
MOST_VALUES = 2**28
"""Of the maps of a video that are given out at once: 1 GB."""
MOST_OF_PICTURES = 2**30
"""The same of a picture: 64 words at 4096 x 4096 pixels, 4 GB."""


def find(image: RecordedImage, query: str | Word) -> Word:
    """A word, phrase or special token of one side; see `Prompt.find`.

    Raises:
        WordNotFound: the prompt has no such word.
        DetailMissing: start, end or padding of a choice of steps or layers.
    """
    word = image.prompt.find(query)
    specials = {0, image.prompt.num_channels - 2, image.prompt.num_channels - 1}
    if not image.specials and specials.intersection(word.channels):
        raise DetailMissing(f"{word.label} was not kept by layer and step; only the prompt's own words were.")
    return word


def word_levels(channels: Mapping[Grid, Tensor], words: Sequence[Word], aggregation: Aggregation) -> list[Tensor]:
    """Native maps float32 `[words, h, w]` of every resolution, out of float32 `[channels, h, w]`; of a video
    `[words, frames, h, w]`, out of `[frames, channels, h, w]`."""
    return [_merged(x, words, aggregation) for x in channels.values()]


def _merged(channels: Tensor, words: Sequence[Word], aggregation: Aggregation) -> Tensor:
    channels = channels.movedim(-3, 0)
    merge = channels.new_zeros(len(words), channels.shape[0])
    for i, word in enumerate(words):
        merge[i, list(word.channels)] = token_weight(aggregation, len(word.channels))
    with full_precision(channels.device):
        return (merge @ channels.flatten(1)).unflatten(1, channels.shape[1:])


def upscaled(levels: Sequence[Tensor], size: Size, frames: Frames | None, count: int | None = None) -> Tensor:
    """Native maps `[words, h, w]` at one size, summed; of a video `[words, frames, h, w]`, at `count` frames.

    Raises:
        BadArgument: frames of a picture, or more values than can be held at once.
    """
    count = checked_count(count)
    if levels[0].dim() == 3:
        if count is not None:
            raise BadArgument(f"These maps are of one picture, not of {count} frames: `frames` is for videos.")
        check_amount(len(levels[0]), 1, size, MOST_OF_PICTURES)
        return bicubic(levels, size)
    assert frames is not None
    words, shown = len(levels[0]), count or len(frames)
    check_amount(words, shown, size)
    if count is not None:
        levels = [at_frames(level, frames, count) for level in levels]
    return bicubic([level.flatten(0, 1) for level in levels], size).unflatten(0, (words, shown))


def checked_count(count: int | None) -> int | None:
    """How many frames there shall be. Raises BadArgument for what is no whole number of 1 to `MOST_FRAMES`."""
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= MOST_FRAMES:
        raise BadArgument(f"frames is how many frames there shall be, from 1 to {MOST_FRAMES}, not {quoted(count, 60)}.")
    return int(count)


def check_amount(words: int, frames: int, size: Size, most: int = MOST_VALUES) -> None:
    """Raises BadArgument for more maps than can be held at once."""
    if words * frames * size[0] * size[1] > most:
        of_frames = f"{frames} frames of " if frames > 1 else ""
        raise BadArgument(
            f"{words} maps of {of_frames}{size[1]} x {size[0]} pixels are more than can be held at once: ask for fewer "
            "words or frames, or a smaller size."
        )


def step_maps(image: RecordedImage, word: Word, size: Size) -> Tensor:
    """Eq. 6 of every step by itself: float32 `[steps, h, w]` of `size`; see `HeatMaps.steps_of`."""
    detail = image.detail
    if detail is None or not detail.by_step:
        raise DetailMissing("The steps were not kept apart. Record with `trace(pipe, keep='steps')`.")
    if not set(word.channels) <= set(range(1, image.prompt.num_channels - 2)):
        raise DetailMissing(f"{word.label} was not kept by step; only the prompt's own words were.")
    tokens = [channel - 1 for channel in word.channels]
    levels = [x[:, :, tokens].float().sum((1, 2)) for grid, x in detail.values.items() if grid in image.sums]
    return bicubic(levels, size)


def each_once(maps: WordQueries, names: Iterable[str]) -> list[str]:
    """The names, each word once, under the name that it has first: "HOUSE" and "house" are one word.

    Raises:
        WordNotFound: no such word.
    """
    found: dict[object, str] = {}
    for name in several(names):
        found.setdefault(name if maps.is_concept(name) else maps.prompt.find(name).channels, name)
    return list(found.values())


def default_words(maps: WordQueries, most: int | None = None) -> list[str]:
    """The words that are shown where nobody chose any: the content words, or all words where there are none of these.

    Args:
        maps: one picture.
        most: at most so many, those with the most attention (mean of Eq. 6 over the picture); None is all.

    Returns:
        Labels, in the prompt's order.
    """
    words = maps.content_words or maps.words
    most = None if most is None else checked_whole(most, "most", 0)
    if most is None or len(words) <= most:
        return words
    image = maps.positive
    levels = word_levels(image.sums, [image.prompt.find(word) for word in words], image.aggregation)
    strength = sum(level.flatten(1).mean(1) for level in levels)
    assert isinstance(strength, Tensor)
    strongest = strength.argsort(descending=True, stable=True)[: max(0, most)].tolist()
    return [words[i] for i in sorted(strongest)]
