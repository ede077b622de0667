"""What a person chose on the explorer's page, and the mask that follows from it: the page's rules, done by the core.

A host stores the choice as the JSON that the page's `daam-change` and `daam-mask` events carry (web/explorer/model.js).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import masks
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DaamLensError, WordNotFound, quoted
from ..maps.heatmaps import HeatMaps
from ..masks.methods import MASK_METHODS
from ..prompt.concepts import ConceptWord
from ..prompt.prompt import Word
from ..prompt.tokenization import SPECIALS
from .page_data import Axis, detail_words, part_of

LONGEST = 64 * 1024
"""Characters of a choice as JSON."""
MOST_PICKS = 64
"""Words and phrases of a choice; a mask of each is made."""
_MOST_WORDS = 512


class Stopped(DaamLensError):
    """A mask that nobody waits for any more."""


@dataclass(frozen=True)
class Settings:
    """How words become a mask.

    Attributes:
        tau: level, 0..1.
        soft, compete, invert: switches of the page; soft and compete count without a `method` only.
        grow, feather: pixels of the picture.
        method: "" for levels alone, or one of `masks.methods.MASK_METHODS`.
    """

    tau: float = DEFAULT_TAU
    soft: bool = False
    compete: bool = False
    invert: bool = False
    grow: float = 0.0
    feather: float = 0.0
    method: str = ""


@dataclass(frozen=True)
class Choice:
    """`picks` are words and phrases, each word as "kind:label" (kinds: word, special, negative, concept); `part` steps, layers
    or, of a video, frames."""

    picks: tuple[tuple[str, ...], ...] = ()
    settings: Settings = Settings()
    part: tuple[Axis, tuple[int, ...]] | None = None


def read_choice(text: str) -> Choice:
    """The choice that a page told as JSON; an empty text is no words.

    Raises:
        BadArgument: it is nothing that a page tells.
    """
    if not text.strip():
        return Choice()
    if len(text) > LONGEST:
        raise BadArgument(f"A choice of words has at most {LONGEST} characters, not {len(text)}. Choose again on the page.")
    try:
        return _choice(json.loads(text))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, BadArgument) else "it is not JSON"
        raise BadArgument(f"The choice of words cannot be read ({reason}). Choose again on the page.") from None


def _choice(data: Any) -> Choice:
    if not isinstance(data, Mapping) or not isinstance(data.get("words"), list):
        raise BadArgument("it has no list of words")
    if not all(_is_pick(pick) for pick in data["words"]):
        raise BadArgument("its words are not lists of texts such as 'word:house'")
    # Each once: a mask of the same word again changes nothing and takes as long.
    picks = list(dict.fromkeys(tuple(dict.fromkeys(pick)) for pick in data["words"]))
    if len(picks) > MOST_PICKS:
        raise BadArgument(f"it has {len(picks)} words and phrases, and a mask is made of at most {MOST_PICKS}")
    return Choice(tuple(picks), _settings(data.get("settings", {})), _part(data.get("part")))


def server_methods(maps: HeatMaps) -> list[str]:
    """The mask methods beyond the page's own that this recording allows (see `Settings.method`)."""
    return ["best", *(["walk"] if maps.self_attention else []), *([] if maps.picture is None else ["guided", "grabcut"])]


def missing(maps: HeatMaps, choice: Choice) -> list[str]:
    """The words of a choice that this picture's prompt does not have, or whose side was not recorded."""
    return [name for pick in choice.picks for name in pick if _found(maps, (name,)) is None]


def choice_mask(maps: HeatMaps, choice: Choice) -> Tensor:
    """The mask of a choice, cleaned up: bool `[H, W]`, or float32 0..1 where it is soft or feathered.

    Words that the prompt does not have are left out, as on the page; without any the mask is empty.

    Raises:
        BadArgument: an unknown method, layer or step, or a value outside its range.
        DetailMissing: steps, layers, the picture or self-attention are needed and were not recorded.
    """
    mask, settings = united(maps, choice), choice.settings
    if not any(_found(maps, pick) for pick in choice.picks):
        return mask
    if mask.is_floating_point():  # the page leaves the shape of a soft mask alone
        return masks.Cleanup(invert=settings.invert).apply(mask)
    return masks.Cleanup(grow=settings.grow, invert=settings.invert, feather=settings.feather).apply(mask)


def united(maps: HeatMaps, choice: Choice, stopped: Callable[[], bool] | None = None) -> Tensor:
    """The union of the words' masks before clean-up. See `choice_mask`.

    Raises:
        Stopped: `stopped` said yes between two words.
    """
    found = [side for pick in choice.picks if (side := _found(maps, pick)) is not None]
    if not found:
        return torch.zeros(maps.size, dtype=torch.bool)
    parts = []
    for one, word in found:
        if stopped is not None and stopped():
            raise Stopped("Nobody waits for this mask any more.")
        parts.append(_one(one, word, choice, one is maps))
    if parts[0].is_floating_point():
        return torch.stack(parts).amax(0)
    return torch.stack(parts).any(0)


def united_pixels(maps: HeatMaps, text: str, stopped: Callable[[], bool] | None = None) -> NDArray[np.uint8]:
    """What a server answers to a page's choice (JSON): `united` as uint8 `[H, W]`, 255 inside.

    Args:
        maps: one picture's.
        text: the choice.
        stopped: asked before each word; True where the page does not wait any more.

    Raises:
        BadArgument, DetailMissing: see `read_choice` and `choice_mask`.
        Stopped: `stopped` said yes.
    """
    pixels: NDArray[np.uint8] = (united(maps, read_choice(text), stopped).float() * 255).round().numpy().astype(np.uint8)
    return pixels


def _of_frames(side: HeatMaps, word: Word, settings: Settings, frames: Sequence[int]) -> Tensor:
    """The mask of a word in some frames of a video, together; all frames share one level."""
    assert side.frames is not None
    numbers = side.frames.chosen(frames)
    if settings.soft and not settings.method:
        heat = side.heat_map(word, side.size)
        grey = masks.soft(heat.flatten(0, 1), settings.tau).unflatten(0, (len(heat), -1))
        won = side.mask(word, "compete", tau=settings.tau, size=side.size) if settings.compete else 1
        return (grey * won)[numbers].amax(0)
    method = settings.method or ("compete" if settings.compete else "threshold")
    return side.mask(word, method, tau=settings.tau, size=side.size)[numbers].any(0)


def _one(side: HeatMaps, word: Word, choice: Choice, positive: bool) -> Tensor:
    settings = choice.settings
    # The page has steps and layers of the words that can be seen; of others there is only the whole (model.js, `levels`).
    kept = {row for label in detail_words(side) for row in side.prompt.find(label).channels} if positive else set()
    in_parts = kept.issuperset(word.channels) and not isinstance(word, ConceptWord)
    if choice.part is not None and choice.part[0] == "frames" and in_parts and side.num_frames > 1:
        return _of_frames(side, word, settings, choice.part[1])
    part = (_of_part(side, choice) if positive else side).sum_frames()
    side = side.sum_frames()
    own = part if in_parts else side
    if settings.method:
        return own.mask(word, settings.method, tau=settings.tau, image=side.picture, size=side.size)
    heat = own.heat_map(word, side.size)
    if not settings.compete:
        return masks.soft(heat, settings.tau) if settings.soft else masks.threshold(heat, settings.tau)
    rivals = [part.heat_map(rival, side.size) for rival in side.competitors(word)]
    won = masks.compete_with_rivals(torch.stack([heat, *rivals]), settings.tau)
    return masks.soft(heat, settings.tau) * won if settings.soft else won


def _of_part(side: HeatMaps, choice: Choice) -> HeatMaps:
    if choice.part is None:
        return side
    axis, frames = choice.part
    return part_of(side, axis, frames)


def picked(maps: HeatMaps, pick: Sequence[str]) -> tuple[HeatMaps, Word]:
    """The side (prompt or negative prompt) that holds a pick, and its word or phrase.

    Raises:
        WordNotFound: no such words, words of both sides, or the negative prompt was not recorded.
    """
    found = _found(maps, tuple(pick))
    if found is None:
        raise WordNotFound(
            f"These words are not in the recording: {quoted(', '.join(pick), 80)}. A choice is words of one prompt, as "
            "kind:label."
        )
    return found


def _found(maps: HeatMaps, pick: tuple[str, ...]) -> tuple[HeatMaps, Word] | None:
    """The side that holds a pick, and its word; None where the prompt does not have it."""
    kinds = {name.partition(":")[0] for name in pick}
    if len(kinds) != 1:
        return None
    if kinds == {"concept"}:
        return _concept(maps, pick)
    side = maps if kinds <= {"word", "special"} else maps.negative if kinds == {"negative"} else None
    if side is None:
        return None
    # Only the prompt of the picture itself has a picture; the negative one's maps lie over the same.
    side = side if side is maps else dataclasses.replace(side, picture=maps.picture, size=maps.size)
    labels = [name.partition(":")[2] for name in pick]
    # Start, end and padding stand for themselves: they are no part of a phrase.
    if not (set(side.prompt.labels).issuperset(labels) or (len(labels) == 1 and labels[0] in SPECIALS)):
        return None
    try:
        return side, side.prompt.phrase(labels)
    except WordNotFound:
        return None


def _concept(maps: HeatMaps, pick: tuple[str, ...]) -> tuple[HeatMaps, Word] | None:
    """A concept stands for itself."""
    label = pick[0].partition(":")[2]
    if len(pick) != 1 or label not in maps.concepts:
        return None
    word = maps.sides["concepts"].prompt.find(label)
    return maps, ConceptWord(word.label, word.text, word.channels)


def _is_pick(pick: Any) -> bool:
    return isinstance(pick, list) and 0 < len(pick) <= _MOST_WORDS and all(isinstance(name, str) for name in pick)


def _settings(data: Any) -> Settings:
    if not isinstance(data, Mapping):
        raise BadArgument("its settings are no set of names and values")
    ranges = {"tau": (0.0, 1.0), "grow": (-512.0, 512.0), "feather": (0.0, 512.0)}
    values: dict[str, Any] = {}
    for name, (least, most) in ranges.items():
        value = data.get(name, getattr(Settings, name))
        # Compared first: a whole number of 400 digits is larger than `most`, but no float can hold it.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise BadArgument(f"{name} is a number from {least:g} to {most:g}, not {value!a:.40}")
        values[name] = float(value)
    for name in ("soft", "compete", "invert"):
        values[name] = data.get(name, False)
        if not isinstance(values[name], bool):
            raise BadArgument(f"{name} is true or false, not {values[name]!a:.40}")
    values["method"] = "" if data.get("method") is None else data["method"]
    if values["method"] not in ("", *MASK_METHODS):
        raise BadArgument(f"there is no mask method {values['method']!a:.40}; there are {', '.join(MASK_METHODS)}")
    return Settings(**values)


def _part(data: Any) -> tuple[Axis, tuple[int, ...]] | None:
    if data is None:
        return None
    frames = data.get("frames") if isinstance(data, Mapping) else None
    numbers = (
        isinstance(frames, list) and 0 < len(frames) <= 10_000 and all(isinstance(i, int) and 0 <= i < 10_000 for i in frames)
    )
    if not isinstance(frames, list) or not numbers or data.get("axis") not in ("steps", "layers", "frames"):
        raise BadArgument("its part is not a list of steps, layers or frames")
    return data["axis"], tuple(frames)
