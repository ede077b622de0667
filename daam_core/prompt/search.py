"""Finds a word or phrase in a prompt, or raises with the reason why there is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument, WordNotFound, quoted
from .alignment import is_visible, is_word_boundary, search_key, segment
from .tokenization import SPECIALS
from .words import Word, merged

if TYPE_CHECKING:
    from .prompt import Prompt

_LISTED = 40
_NUMBERED = re.compile(r"(.+)#([1-9]\d{0,4})", re.ASCII)


def several(queries: Any) -> list[Any]:
    """Words and phrases as a list; a text or `Word` alone is one of them, and not its letters.

    Raises:
        BadArgument: it is neither a word nor a row of them.
    """
    if isinstance(queries, (str, Word)):
        return [queries]
    try:
        if not isinstance(queries, (bytes, bytearray)):
            return list(queries)
    except TypeError:  # an array without an axis says that it is iterable
        pass
    raise BadArgument(f"Words are named by their texts, such as ['house', 'tree'], not by {quoted(queries, 40)}.")


def find(prompt: Prompt, query: str | Word) -> Word:
    """See `Prompt.find`."""
    if isinstance(query, Word):
        return _own(prompt, query)
    if not isinstance(query, str):
        raise BadArgument(f"A word is named by its text, such as 'house' or 'house#2', not by {quoted(query, 40)}.")
    key, cuts = _key_and_cuts(query)
    if key in SPECIALS:
        return _special(prompt, key)
    if key in prompt.by_key:
        return prompt.by_key[key]
    keys = [search_key(word.text) for word in prompt.words]
    found = _phrases(prompt, keys, key, cuts)
    if not found and (numbered := _NUMBERED.fullmatch(key)):
        found = _phrases(prompt, keys, numbered[1], cuts)[int(numbered[2]) - 1 :]
    if not found:
        raise WordNotFound(_missing(prompt, keys, query, key, cuts))
    return replace(found[0], label=" ".join(query.split()))


def _own(prompt: Prompt, word: Word) -> Word:
    if not word.channels or not all(0 <= channel < prompt.num_channels for channel in word.channels):
        raise WordNotFound(f"{quoted(word.label)} is a word of another prompt; this one's words are: {_listing(prompt)}.")
    return word


def _special(prompt: Prompt, key: str) -> Word:
    columns = dict(zip(SPECIALS, (prompt.start, prompt.end, prompt.padding), strict=True))[key]
    channel = dict(zip(SPECIALS, (0, prompt.num_channels - 2, prompt.num_channels - 1), strict=True))[key]
    if not columns:
        raise WordNotFound(f"This prompt has no {key} token; its words are: {_listing(prompt)}.")
    return Word(key, key, (channel,))


def _phrases(prompt: Prompt, keys: Sequence[str], key: str, cuts: Set[int]) -> list[Word]:
    """Runs of neighbouring words that spell `key` and meet at `cuts`, from left to right, not overlapping."""
    found: list[Word] = []
    first = 0
    while first < len(keys):
        last = _spelled_until(key, cuts, keys, first)
        if last > first:
            found.append(merged(prompt.words[first:last], prompt.tokens))
        first = max(last, first + 1)
    return found


def _missing(prompt: Prompt, keys: Sequence[str], query: str, key: str, cuts: Set[int]) -> str:
    if _was_cut_off(prompt, keys, key, cuts):
        return (
            f"{quoted(query, 200)} was cut off: the text encoder reads {len(prompt.tokens)} tokens of this prompt. "
            f"Words it read: {_listing(prompt)}."
        )
    if not key.isascii() and _is_typed(prompt, key, cuts):
        return (
            f"{quoted(query, 200)} stands in the prompt, but the text encoder does not know all of its signs. "
            f"Words it read: {_listing(prompt)}."
        )
    if key not in "".join(keys) and _is_typed(prompt, key, cuts):
        if len(prompt.encoders) == 1:  # another may have read it, see `encoders.of_encoder`
            return (
                f"{quoted(query, 200)} stands in the prompt, but {prompt.encoders[0]} did not read it. "
                f"Words that it read: {_listing(prompt)}."
            )
        return (
            f"{quoted(query, 200)} stands in the prompt, but the model that paints was not given it. "
            f"Words that it was given: {_listing(prompt)}."
        )
    if not prompt.words:
        return f"{quoted(query, 200)} is not in the prompt: it has no words."
    near = difflib.get_close_matches(key, list(prompt.by_key), n=1)
    hint = f" Did you mean {quoted(prompt.by_key[near[0]].label)}?" if near else ""
    return f"{quoted(query, 200)} is not in the prompt. Its words are: {_listing(prompt)}.{hint}"


def _was_cut_off(prompt: Prompt, keys: Sequence[str], key: str, cuts: Set[int]) -> bool:
    """Whether a word, or a phrase that begins or ends there, stands where the text encoder had stopped reading."""
    lost = [search_key(word) for word in prompt.truncated]
    if numbered := _NUMBERED.fullmatch(key):
        key = numbered[1]
    if not key or not lost:
        return False
    whole = [*keys, *lost]
    inside = any(_spelled_until(key, cuts, whole, first) > max(first, len(keys)) for first in range(len(whole)))
    return inside or any(key in word for word in lost)


def _is_typed(prompt: Prompt, key: str, cuts: Set[int]) -> bool:
    """Whether a word or phrase stands in the text as it was typed."""
    typed = [search_key(prompt.text[a:b]) for a, b in segment(prompt.text)]
    return any(_spelled_until(key, cuts, typed, first) > first for first in range(len(typed)))


def _listing(prompt: Prompt) -> str:
    visible = [word for word in prompt.words if is_visible(word.text)]
    labels = [word.label for word in visible]
    return listed(labels if len(labels) <= _LISTED else list(dict.fromkeys(word.text for word in visible))) or "none"


def _key_and_cuts(query: str) -> tuple[str, Set[int]]:
    """The query's search key, and where in it one word may end and the next begin."""
    parts = [search_key(part) for part in query.split()]
    key = "".join(parts)
    inside = {i for i in range(1, len(key)) if is_word_boundary(key[i - 1], key[i])}
    return key, inside | set(accumulate(map(len, parts)))


def _spelled_until(key: str, cuts: Set[int], keys: Sequence[str], first: int) -> int:
    """The index after the last of the words `keys[first:]` that together spell `key`; `first` if none do."""
    at = 0
    for last in range(first, len(keys)):
        if not key.startswith(keys[last], at) or (at and at not in cuts):
            return first
        at += len(keys[last])
        if at == len(key):
            return last + 1 if key else first
    return first


def listed(values: Sequence[object]) -> str:
    """The first of some values, and how many there are."""
    shown = ", ".join(map(str, values[:_LISTED]))
    return shown if len(values) <= _LISTED else f"{shown}, ... ({len(values)} in all)"
