"""From the columns of a text encoder's output to the words that were typed.

A UNet's cross-attention has one column per token of the context: a start token, the prompt's tokens, an end token and
padding, in chunks of 77. Recorded maps have one **channel** per thing worth looking at: channel 0 the start tokens,
channels 1..n the prompt's n tokens in order, n+1 the end tokens, n+2 the padding. A word is a few of these channels.

SDXL's two encoders tokenise alike and share their columns (their features lie side by side): one Prompt serves both.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument, BadPrompt, WordNotFound
from .alignment import align_tokens, is_visible, is_word_boundary, readable, search_key, unspelled, words_of
from .stopwords import STOP_WORDS
from .tokenization import SPECIALS, Tokenizer, as_chunks, flattened, roles, spelling

if TYPE_CHECKING:
    import torch

_LISTED = 40


@dataclass(frozen=True)
class Token:
    """One token of the prompt: its context column, the characters it touches, its channel, the host's weight for it."""

    column: int
    text: str
    channel: int
    weight: float = 1.0


@dataclass(frozen=True)
class Word:
    """A word or phrase: unique `label` ("house#2" for the second "house"), typed `text`, its tokens' channels."""

    label: str
    text: str
    channels: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """The words of one prompt and where each stands in a context of `length` columns.

    `start`, `end` and `padding` are context columns. `truncated` lists the words that the text encoder did not
    get, whole or in part (known only where `text` was given). BadPrompt if a column is missing or given twice.
    """

    text: str
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]
    padding: tuple[int, ...]
    length: int
    truncated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = sorted([*self.start, *self.end, *self.padding, *(token.column for token in self.tokens)])
        channels = [token.channel for token in self.tokens]
        if columns != list(range(self.length)):
            raise BadPrompt(f"Each of the {self.length} context columns must have one role; seen: {_short(columns)}.")
        if channels != list(range(1, len(channels) + 1)):
            raise BadPrompt(f"Token channels must count from 1 to {len(channels)}; seen: {_short(channels)}.")
        if any(not 1 <= channel <= len(channels) for word in self.words for channel in word.channels):
            raise BadPrompt(f"A word names a channel outside 1 to {len(channels)}.")
        if any(not word.channels for word in self.words):
            raise BadPrompt("A word has no channel.")

    @classmethod
    def from_ids(
        cls,
        ids: Sequence[int | str] | Sequence[Sequence[int | str]],
        tokenizer: Tokenizer,
        weights: Sequence[float] | Sequence[Sequence[float]] | None = None,
        text: str = "",
    ) -> Prompt:
        """Read one prompt's token ids, as the text encoder got them.

        `ids`: one list (or tensor row), or a list of chunks that the host encoded apart and joined; one list of
        k * 77 ids of which every 77th is the start token counts as k chunks. In each chunk the first end token ends
        the prompt and everything after it is padding, whatever its id. A string in place of an id is a host's own
        embedding by name, an empty string its next vector. `weights` is shaped like `ids`. `text`, where known,
        gives words their typed case, tells "4k" from "4 k", and names the words that were cut off.
        Raises BadPrompt for an id that the tokenizer does not have, BadArgument for weights of another length.
        """
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        parts = as_chunks(ids, start)
        flat = [entry for part in parts for entry in part]
        flat_weights = [1.0] * len(flat) if weights is None else [float(w) for w in flattened(weights)]
        if len(flat_weights) != len(flat):
            raise BadArgument(f"Each token needs one weight: {len(flat)} tokens, {len(flat_weights)} weights.")
        places = [role for part in parts for role in roles(part, start, end)]
        at = {role: tuple(i for i, seen in enumerate(places) if seen == role) for role in ("token", *SPECIALS)}
        spelled = align_tokens(spelling([flat[i] for i in at["token"]], tokenizer), text)
        tokens = tuple(
            Token(column, readable(spelled.text[a:b]), channel, flat_weights[column])
            for channel, (column, (a, b)) in enumerate(zip(at["token"], spelled.spans, strict=True), start=1)
        )
        full = bool(tokens) and places[-1] != "<padding>"
        return cls(
            text=text or readable(spelled.text),
            tokens=tokens,
            words=labelled(words_of(spelled), tokens),
            start=at["<start>"],
            end=at["<end>"],
            padding=at["<padding>"],
            length=len(flat),
            truncated=tuple(unspelled(spelled)) if full else (),
        )

    @classmethod
    def by_index(cls, length: int) -> Prompt:
        """A prompt for embeddings made by hand: context column i is the word `str(i)`; no start, end or padding."""
        if length < 1:
            raise BadArgument(f"A context has at least one column, not {length}.")
        tokens = tuple(Token(column, str(column), column + 1) for column in range(length))
        words = tuple(Word(token.text, token.text, (token.channel,)) for token in tokens)
        return cls("", tokens, words, (), (), (), length)

    @property
    def num_channels(self) -> int:
        """Channels of every recorded map: start, the tokens, end, padding."""
        return len(self.tokens) + 3

    @property
    def labels(self) -> list[str]:
        """The words' labels in order: `['a', 'red', 'house', 'and', 'a#2', 'green', 'tree']`."""
        return [word.label for word in self.words]

    def content_words(self) -> list[str]:
        """Labels of the words that can be seen in a picture: no stop words, no punctuation."""
        return [w.label for w in self.words if is_visible(w.text) and search_key(w.text) not in STOP_WORDS]

    def rivals(self, query: str | Word) -> list[str]:
        """The words that compete with `query` for the picture's places: the last word of every other noun group.

        A group is a run of neighbouring content words ("red house" in "a red house and a green tree"), so an
        adjective does not take its own noun's place, and no part of speech has to be known.
        """
        own = set(self.find(query).channels)
        content = set(self.content_words())
        groups: list[list[Word]] = [[]]
        for word in self.words:
            if word.label in content:
                groups[-1].append(word)
            elif groups[-1]:
                groups.append([])
        return [group[-1].label for group in groups if group and not own & {channel for w in group for channel in w.channels}]

    def column_channels(self, length: int | None = None) -> list[int]:
        """The channel of each context column. A longer context is this one repeated, as hosts do to match lengths."""
        length = self.length if length is None else length
        if length < self.length or length % max(self.length, 1):
            raise BadArgument(
                f"The model's context has {length} columns and this prompt {self.length}: give the prompt that the "
                "model got (a repeated one is a whole multiple)."
            )
        channels = [0] * self.length
        for token in self.tokens:
            channels[token.column] = token.channel
        for columns, channel in ((self.end, self.num_channels - 2), (self.padding, self.num_channels - 1)):
            for column in columns:
                channels[column] = channel
        return channels * (length // max(self.length, 1))

    def selection(self, length: int | None = None) -> torch.Tensor:
        """float32 `[length, channels]` of zeros and ones: probabilities `[..., length]` @ selection sums the start, end
        and padding columns, and folds a repeated context by summing. BadArgument if `length` is no multiple."""
        import torch

        channels = torch.tensor(self.column_channels(length), dtype=torch.long)
        return torch.zeros(len(channels), self.num_channels).scatter_(1, channels[:, None], 1.0)

    def find(self, query: str | Word) -> Word:
        """A word by label or text ("house", "house#2"), a phrase of neighbouring words ("red house", "cat-toy"; its
        channels together), or "<start>", "<end>", "<padding>". Case, spaces and the kind of apostrophe do not matter. A
        `Word` is itself.

        Raises WordNotFound, which lists the words that are.
        """
        if isinstance(query, Word):
            return query
        key, cuts = _key_and_cuts(query)
        if key in SPECIALS:
            return self._special(key)
        if key in self._by_key:
            return self._by_key[key]
        found = self._phrases(key, cuts)
        if not found and (numbered := re.fullmatch(r"(.+)#([1-9]\d{0,4})", key)):
            found = self._phrases(numbered[1], cuts)[int(numbered[2]) - 1 :]
        if not found:
            raise WordNotFound(self._missing(query, key))
        return replace(found[0], label=" ".join(query.split()))

    def phrase(self, labels: Sequence[str]) -> Word:
        """Some words together, named by their labels. Raises WordNotFound."""
        words = [self.find(label) for label in labels]
        return words[0] if len(words) == 1 else _merged(words, self.tokens)

    @cached_property
    def _by_key(self) -> dict[str, Word]:
        return {search_key(word.label): word for word in reversed(self.words)}

    def _special(self, key: str) -> Word:
        columns = dict(zip(SPECIALS, (self.start, self.end, self.padding), strict=True))[key]
        channel = dict(zip(SPECIALS, (0, self.num_channels - 2, self.num_channels - 1), strict=True))[key]
        if not columns:
            raise WordNotFound(f"This prompt has no {key} token; its words are: {self._listing()}.")
        return Word(key, key, (channel,))

    def _phrases(self, key: str, cuts: Set[int]) -> list[Word]:
        """Runs of neighbouring words that align_tokens `key` and meet at `cuts`, from left to right, not overlapping."""
        keys = [search_key(word.text) for word in self.words]
        found: list[Word] = []
        first = 0
        while first < len(keys):
            last = _spelled_until(key, cuts, keys, first)
            if last > first:
                found.append(_merged(self.words[first:last], self.tokens))
            first = max(last, first + 1)
        return found

    def _missing(self, query: str, key: str) -> str:
        if key and any(key in search_key(word) for word in self.truncated):
            return (
                f"{query!r} was cut off: the text encoder reads {len(self.tokens)} tokens of this prompt. "
                f"Words it read: {self._listing()}."
            )
        if not self.words:
            return f"{query!r} is not in the prompt: it has no words."
        near = difflib.get_close_matches(key, list(self._by_key), n=1)
        hint = f" Did you mean {self._by_key[near[0]].label!r}?" if near else ""
        return f"{query!r} is not in the prompt. Its words are: {self._listing()}.{hint}"

    def _listing(self) -> str:
        shown = [word for word in self.words if is_visible(word.text)]
        labels = [word.label for word in shown]
        return _short(labels if len(labels) <= _LISTED else list(dict.fromkeys(word.text for word in shown))) or "none"


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


def _merged(words: Sequence[Word], tokens: Sequence[Token]) -> Word:
    channels = tuple(channel for word in words for channel in word.channels)
    text = " ".join(word.text for word in words)
    return Word(text, text, channels, sum(tokens[i - 1].weight for i in channels) / len(channels))


def _key_and_cuts(query: str) -> tuple[str, Set[int]]:
    """The query's search key, and where in it one word may end and the next begin."""
    parts = [search_key(part) for part in query.split()]
    key = "".join(parts)
    inside = {i for i in range(1, len(key)) if is_word_boundary(key[i - 1], key[i])}
    return key, inside | set(accumulate(map(len, parts)))


def _spelled_until(key: str, cuts: Set[int], keys: Sequence[str], first: int) -> int:
    """The index after the last of the words `keys[first:]` that together align_tokens `key`; `first` if none do."""
    at = 0
    for last in range(first, len(keys)):
        if not key.startswith(keys[last], at) or (at and at not in cuts):
            return first
        at += len(keys[last])
        if at == len(key):
            return last + 1 if key else first
    return first


def _short(values: Sequence[Any]) -> str:
    shown = ", ".join(map(str, values[:_LISTED]))
    return shown if len(values) <= _LISTED else f"{shown}, ... ({len(values)} in all)"
