"""What the explorer calls a choice (`kind:label` of each word of a phrase), in the words of `HeatMaps`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from daam_core.errors import BadArgument, WordNotFound
from daam_core.heatmaps import HeatMaps

Pick = Sequence[str]
KINDS = ("word", "special", "negative")


def side_of(maps: HeatMaps, pick: Pick) -> HeatMaps:
    """The maps that a pick speaks of: the prompt's, or the negative prompt's with the same picture.

    Raises:
        BadArgument: an empty pick, an unknown kind, or words of both sides.
        WordNotFound: the negative prompt was not recorded.
    """
    kinds = {word.partition(":")[0] for word in pick}
    if len(kinds) != 1 or not kinds <= set(KINDS):
        raise BadArgument(
            f"A choice is a list of words as kind:label, all of one kind of {', '.join(KINDS)}; not {list(pick)!r:.80}."
        )
    if kinds != {"negative"}:
        return maps
    if maps.negative is None:
        raise WordNotFound("The negative prompt was not recorded.")
    return dataclasses.replace(maps.negative, picture=maps.picture, size=maps.size)


def query_of(maps: HeatMaps, pick: Pick) -> str:
    """A pick as `HeatMaps` asks for it: a label, or a phrase with its number. Raises what `side_of` does, and WordNotFound."""
    prompt = side_of(maps, pick).prompt
    labels = [word.partition(":")[2] for word in pick]
    words = [prompt.find(label) for label in labels]
    if len(words) == 1:
        return labels[0]
    rows = {row for word in words for row in word.rows}
    phrase = " ".join(word.text for word in words)
    numbered = (phrase if n == 1 else f"{phrase}#{n}" for n in range(1, len(prompt.words) + 1))
    return next((query for query in numbered if set(prompt.find(query).rows) == rows), phrase)


def mask_of_pick(maps: HeatMaps, pick: Pick, method: str, tau: float) -> NDArray[np.uint8]:
    """uint8 `[H, W]`, 255 inside. Raises what `query_of` and `HeatMaps.mask` raise."""
    mask = side_of(maps, pick).mask(query_of(maps, pick), method, tau=tau)
    return mask.numpy().astype(np.uint8) * 255
