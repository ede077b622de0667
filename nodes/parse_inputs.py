"""What a user typed into a text field, as words, layers, steps or heads of a recording."""

from __future__ import annotations

import re

from ..daam_core.errors import BadArgument, DetailMissing, NothingRecorded
from ..daam_core.maps.heatmaps import HeatMaps

NEGATIVE = "negative:"
WORDS_HELP = (
    "One word or phrase a line (or between commas). Empty: every word that can be seen. `*`: all words. `house#2`: the second "
    "house. `<start>`, `<end>`, `<padding>`: the tokens around the prompt. `negative:blurry`: a word of the negative prompt."
)
SOME_WORDS_HELP = "Only these words, one a line or between commas; empty: every word that can be seen."


def words_in(text: str, maps: HeatMaps) -> list[str]:
    """The words that `text` asks for, each once, in order.

    Raises:
        WordNotFound: the prompt has no such word (the text lists those it has).
        NothingRecorded: a word of the negative prompt was asked for, and that was not recorded; or there are no words.
    """
    asked = [part.strip() for part in re.split(r"[,\n]", text)]
    found: list[str] = []
    for word in asked:
        if word in ("*", f"{NEGATIVE}*"):
            found += maps.words if word == "*" else [NEGATIVE + w for w in negative(maps).words]
        elif word:
            found.append(word)
    if not any(asked):
        found = maps.content_words or maps.words
    if not found:
        raise NothingRecorded("The prompt has no words, so there is no map to show. Write a prompt, or ask for <start>.")
    for word in found:
        side, query = side_of(word, maps)
        side.prompt.find(query)
    return list(dict.fromkeys(found))


def side_of(word: str, maps: HeatMaps) -> tuple[HeatMaps, str]:
    """The maps that hold a word, and the word without its prefix."""
    if word.lower().startswith(NEGATIVE):
        return negative(maps), word[len(NEGATIVE) :].strip()
    return maps, word


def negative(maps: HeatMaps) -> HeatMaps:
    """The negative prompt's maps. Raises NothingRecorded where they were not recorded."""
    if maps.negative is None:
        raise NothingRecorded("The negative prompt was not recorded. Switch `negative` on in the Record node and queue again.")
    return maps.negative


def chosen(maps: HeatMaps, layers: str, steps: str, heads: str) -> HeatMaps:
    """Maps from some layers ("down, mid, up", numbers, module paths), steps and heads ("0-4, -1"); empty is all.

    Raises:
        DetailMissing: the recording did not keep them apart.
        BadArgument: no such layer, step or head.
    """
    wanted = [part.strip() for part in layers.split(",") if part.strip()]
    asked_layers = [n for part in wanted for n in (numbers(part, "layers") if _is_range(part) else [part])] or None
    asked_steps = numbers(steps, "steps") or None
    asked_heads = numbers(heads, "heads") or None
    try:
        picked = maps.select(layers=asked_layers, steps=asked_steps, heads=asked_heads)
    except DetailMissing as error:
        if asked_heads and asked_steps:
            raise
        name = "heads" if asked_heads else "steps" if asked_steps else "layers"
        how = "Switch `heads` on" if asked_heads else "Set `detail` to 'layers + steps'"
        raise DetailMissing(f"The {name} were not kept apart. {how} in the Record node and queue again.") from error
    if picked is not maps and maps.negative is not None:
        picked = picked.with_negative(chosen(maps.negative, layers, steps, heads))
    return picked


def numbers(text: str, what: str) -> list[int]:
    """`"0-4, 7, -1"` -> `[0, 1, 2, 3, 4, 7, -1]`.

    Raises:
        BadArgument: something else than numbers and ranges.
    """
    found: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        if not _is_range(part):
            raise BadArgument(f"{what} are numbers and ranges such as '0-4, 7, -1', not {part!r}.")
        first, last = re.fullmatch(r"(-?\d{1,5})(?:\s*-\s*(\d{1,5}))?", part).groups()  # type: ignore[union-attr]
        low, high = int(first), int(first if last is None else last)
        if last is not None and not 0 <= low <= high:
            raise BadArgument(f"{what} go from the smaller number to the larger, such as '4-9', not {part!r}.")
        found += range(low, high + 1)
    return found


def _is_range(part: str) -> bool:
    return re.fullmatch(r"-?\d{1,5}(?:\s*-\s*\d{1,5})?", part) is not None
