"""From the columns of a text encoder's output to the words that were typed.

A UNet's cross-attention has one column per token of the context: a start token, the prompt's tokens, an end token and
padding, in chunks of 77. Recorded maps have one **channel** per thing worth looking at: channel 0 the start tokens,
channels 1..n the prompt's n tokens in order, n+1 the end tokens, n+2 the padding. A word is a few of these channels.

SDXL's two encoders tokenise alike and share their columns (their features lie side by side): one Prompt serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING

from ..errors import BadArgument, BadPrompt, quoted
from . import search
from .alignment import align_tokens, is_visible, readable, search_key, unspelled, words_of
from .stopwords import STOP_WORDS
from .tokenization import SPECIALS, Tokenizer, as_chunks, flattened, roles, spelling
from .words import Token as Token
from .words import Word as Word
from .words import labelled as labelled
from .words import merged

if TYPE_CHECKING:
    import torch


MOST_COLUMNS = 2**20
"""Of a context; a record holds no more."""


@dataclass(frozen=True)
class Prompt:
    """The words of one prompt and where each stands in a context of `length` columns.

    `start`, `end` and `padding` are context columns. `truncated` lists the words that the text encoder did not
    get, whole or in part (known only where `text` was given). BadPrompt if a column is missing or given twice.

    Example:
        >>> prompt = maps.prompt
        >>> prompt.length, prompt.num_channels, prompt.labels
        (77, 10, ['a', 'red', 'house', 'and', 'a#2', 'green', 'tree'])
        >>> prompt.find("red house").channels
        (2, 3)
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
            raise BadPrompt(f"Each of the {self.length} context columns must have one role; seen: {search.listed(columns)}.")
        if channels != list(range(1, len(channels) + 1)):
            raise BadPrompt(f"Token channels must count from 1 to {len(channels)}; seen: {search.listed(channels)}.")
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
        """A prompt for embeddings made by hand: context column i is the word `str(i)`; no start, end or padding.

        Raises:
            BadArgument: no whole number of 1 to `MOST_COLUMNS`.

        Example:
            >>> Prompt.by_index(3).labels
            ['0', '1', '2']
        """
        if isinstance(length, bool) or not isinstance(length, Integral) or not 1 <= length <= MOST_COLUMNS:
            raise BadArgument(f"A context has 1 to {MOST_COLUMNS} columns, not {quoted(length, 40)}.")
        length = int(length)
        tokens = tuple(Token(column, str(column), column + 1) for column in range(length))
        words = tuple(Word(token.text, token.text, (token.channel,)) for token in tokens)
        return cls("", tokens, words, (), (), (), length)

    @property
    def num_channels(self) -> int:
        """Channels of every recorded map: start, the tokens, end, padding."""
        return len(self.tokens) + 3

    @property
    def encoders(self) -> list[str]:
        """The text encoders that read its words, by name, where a model joins the columns of several: `['CLIP', 'T5']` of SD3;
        none where there is one, or its encoders share their columns (SDXL).

        Example:
            >>> maps.prompt.encoders
            []
        """
        from .encoders import encoders_of

        return encoders_of(self)

    @property
    def labels(self) -> list[str]:
        """The words' labels in order: `['a', 'red', 'house', 'and', 'a#2', 'green', 'tree']`."""
        return [word.label for word in self.words]

    def content_words(self) -> list[str]:
        """Labels of the words that can be seen in a picture: no stop words, no punctuation."""
        return [w.label for w in self.words if is_visible(w.text) and search_key(w.text) not in STOP_WORDS]

    def rivals(self, query: str | Word | None) -> list[str]:
        """The words that compete with `query` for the picture's places: the last word of every other noun group; of every one
        for None, which is something that the prompt does not hold.

        A group is a run of neighbouring content words ("red house" in "a red house and a green tree"), so an
        adjective does not take its own noun's place, and no part of speech has to be known.

        Example:
            >>> maps.prompt.rivals("red")
            ['tree']
        """
        own = set() if query is None else set(self.find(query).channels)
        content = set(self.content_words())
        groups: list[list[Word]] = [[]]
        for word in self.words:
            if word.label in content:
                groups[-1].append(word)
            elif groups[-1]:
                groups.append([])
        return [group[-1].label for group in groups if group and not own & {channel for w in group for channel in w.channels}]

    def column_channels(self) -> list[int]:
        """The channel of each of the prompt's own `length` columns (see `context` for the context that a model got)."""
        channels = [0] * self.length
        for token in self.tokens:
            channels[token.column] = token.channel
        for columns, channel in ((self.end, self.num_channels - 2), (self.padding, self.num_channels - 1)):
            for column in columns:
                channels[column] = channel
        return channels

    def selection(self, length: int | None = None) -> torch.Tensor:
        """float32 `[length, channels]` of zeros and ones: probabilities `[..., length]` @ selection sums the start, end
        and padding columns, and folds a repeated context by summing. BadArgument if `length` is no multiple."""
        from .context import selection

        return selection(self, self.length if length is None else length)

    def find(self, query: str | Word) -> Word:
        """A word by label or text ("house", "house#2"), a phrase of neighbouring words ("red house", "cat-toy"; its
        channels together), or "<start>", "<end>", "<padding>". Case, spaces and the kind of apostrophe do not matter. A
        `Word` is itself.

        Raises:
            WordNotFound: the prompt has no such word (the text lists those it has), or it was cut off.
            BadArgument: the query is no text.

        Example:
            >>> maps.prompt.find("A#2").label, maps.prompt.find("<end>").channels
            ('a#2', (8,))
        """
        return search.find(self, query)

    def phrase(self, labels: Sequence[str]) -> Word:
        """Some words together, named by their labels; "<start>", "<end>" and "<padding>" may be among them.

        Raises:
            WordNotFound: the prompt has no such word.
            BadArgument: no word was named.

        Example:
            >>> maps.prompt.phrase(["red", "<padding>"]).channels
            (2, 9)
        """
        words = [self.find(label) for label in search.several(labels)]
        if not words:
            raise BadArgument("A phrase has at least one word.")
        return words[0] if len(words) == 1 else merged(words, self.tokens)

    @cached_property
    def by_key(self) -> dict[str, Word]:
        """The words under what two spellings of one word share (see `alignment.search_key`)."""
        return {search_key(word.label): word for word in reversed(self.words)}
