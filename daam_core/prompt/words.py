"""Tokens and words of a prompt: a token stands in a column of the context, a word is one or more tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .alignment import search_key


@dataclass(frozen=True)
class Token:
    """One token of the prompt: its context column, the characters it touches, its channel, the host's weight for it, and the
    name of its text encoder where a model joins the columns of several."""

    column: int
    text: str
    channel: int
    weight: float = 1.0
    encoder: str = ""


@dataclass(frozen=True)
class Word:
    """A word or phrase: unique `label` ("house#2" for the second "house"), typed `text`, its tokens' channels, the weight that
    the host gave it.

    Example:
        >>> maps.prompt.words[4]
        Word(label='a#2', text='a', channels=(5,), weight=1.0)
    """

    label: str
    text: str
    channels: tuple[int, ...]
    weight: float = 1.0


def labelled(words: Sequence[tuple[str, tuple[int, ...]]], tokens: Sequence[Token]) -> tuple[Word, ...]:
    """Words from (text, indices of its tokens), repeated ones numbered: `house`, `house#2`."""
    counts: Counter[str] = Counter()
    labelled = []
    for text, indices in words:
        key = search_key(text)
        counts[key] += 1
        label = text if counts[key] == 1 else f"{text}#{counts[key]}"
        weight = sum(tokens[i].weight for i in indices) / len(indices)
        labelled.append(Word(label, text, tuple(tokens[i].channel for i in indices), weight))
    return tuple(labelled)


def merged(words: Sequence[Word], tokens: Sequence[Token]) -> Word:
    """Several words as one: each channel once, their texts one after the other. Start, end and padding weigh 1."""
    channels = tuple(dict.fromkeys(channel for word in words for channel in word.channels))
    weights = [tokens[i - 1].weight if 1 <= i <= len(tokens) else 1.0 for i in channels]
    text = " ".join(word.text for word in words)
    return Word(text, text, channels, sum(weights) / len(weights))
