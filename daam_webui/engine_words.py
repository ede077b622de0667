"""A prompt as the text encoders of Forge's transformers read it: T5, chat models inside a template, Anima's pair.

Their engines tokenize each weighted part of a line by itself: a chat model is then told its template once a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from daam_core.errors import BadPrompt, UnsupportedModel
from daam_core.prompt.compose import drop_prefix, pad_or_truncate
from daam_core.prompt.prompt import Prompt

BREAKS = (
    "This prompt has BREAK, and of a text with BREAK this model is given one part only, so nobody can say which words it was "
    "told. Write the prompt without BREAK to get heat maps."
)
PICTURES = (
    "This model reads its reference pictures inside the text, so its columns are not those of the prompt's words. Paint "
    "without reference pictures to get heat maps."
)
_BEFORE, _BEHIND = "<|im_start|>user\n", "<|im_end|>"
_START = "<Prompt Start>"
ANIMA_COLUMNS = 512
"""So many columns the host pads Anima's text to."""


def read(engine: Any, line: str, negative: bool, width: int, pictures: bool = False) -> Prompt:
    """One line of a prompt as the columns that the model is given, and its words.

    Args:
        engine: the host's text encoder.
        line: one part of AND, one step of a schedule.
        negative: which template it is told, where the two sides have different ones.
        width: of a column of the host's conditioning.
        pictures: whether reference pictures go through the text encoder, too.

    Raises:
        BadPrompt: BREAK, where the model is given one part of the text only.
        UnsupportedModel: pictures inside the text, or an encoder of another kind.
    """
    if pictures and hasattr(engine, "image_template"):
        raise UnsupportedModel(PICTURES)
    told = engine.process_template(line, negative) if hasattr(engine, "process_template") else line
    chunk = _only_chunk(engine, told)
    if hasattr(chunk, "t5_tokens"):
        prompt = _plain(engine.t5_tokenizer, chunk.t5_tokens, chunk.t5_multipliers, None, engine.id_end, line)
        return pad_or_truncate(prompt, max(ANIMA_COLUMNS, prompt.length))
    ids, weights = [int(token) for token in chunk.tokens], [float(weight) for weight in chunk.multipliers]
    if hasattr(engine, "llama_template"):
        own = _chat_columns(_pieces(engine.tokenizer, ids), ids, engine.id_pad)
        prompt = _inside(engine, ids, weights, own, line)
        return drop_prefix(prompt, _dropped(engine, ids, width))
    if hasattr(engine, "process_template"):
        return _inside(engine, ids, weights, _behind_template(engine, ids, line), line)
    end = getattr(engine, "id_end", getattr(engine, "end_token", None))
    return _plain(engine.tokenizer, ids, weights, getattr(engine, "id_start", None), end, line)


def _only_chunk(engine: Any, told: str) -> Any:
    found = engine.tokenize_line(told)
    chunks = found[0] if isinstance(found, tuple) else found
    if len(chunks) != 1:
        raise BadPrompt(BREAKS)
    if any(isinstance(token, Mapping) for token in getattr(chunks[0], "tokens", ())):
        raise UnsupportedModel(PICTURES)
    return chunks[0]


def _plain(
    tokenizer: Any, ids: Sequence[int], weights: Sequence[float], start: int | None, end: int | None, line: str
) -> Prompt:
    """A text without a template: start and end token, padding behind it."""
    vocabulary = TokenizerVocabulary(tokenizer, start, end)
    return Prompt.from_ids([int(token) for token in ids], vocabulary, [float(weight) for weight in weights], line)


def _inside(engine: Any, ids: Sequence[int], weights: Sequence[float], own: Sequence[int], line: str) -> Prompt:
    """A text of which the columns `own` are the user's, and the rest is a template's: start, end, and padding behind it."""
    padding = len(ids)
    while padding > (own[-1] + 1 if own else 0) and ids[padding - 1] == engine.id_pad:
        padding -= 1
    rest = [column for column in range(padding) if column not in set(own)]
    first = own[0] if own else padding
    words = Prompt.from_ids([ids[i] for i in own], TokenizerVocabulary(engine.tokenizer), [weights[i] for i in own], line)
    return replace(
        words,
        tokens=tuple(replace(token, column=own[token.column]) for token in words.tokens),
        start=tuple(column for column in rest if column < first),
        end=tuple(column for column in rest if column > first),
        padding=tuple(range(padding, len(ids))),
        length=len(ids),
    )


def _chat_columns(pieces: Sequence[str], ids: Sequence[int], pad: int) -> list[int]:
    """The columns of what the user says in every turn of a chat.

    Raises:
        UnsupportedModel: there is no such turn.
    """
    written = [piece.replace("Ċ", "\n").replace("Ġ", " ") for piece in pieces]
    whole = "".join(written)
    ends = list(accumulate(map(len, written)))
    starts = [0, *ends[:-1]]
    own: list[int] = []
    at = whole.find(_BEFORE)
    if at < 0:
        if not whole.strip():  # Krea 2 is told an empty text without its template
            return []
        raise UnsupportedModel("The text encoder of this model is told a template that is not known, so words cannot be read.")
    while at >= 0:
        first = at + len(_BEFORE)
        stop = whole.find(_BEHIND, first)
        stop = len(whole) if stop < 0 else stop
        own += [i for i in range(len(ids)) if first <= starts[i] and ends[i] <= stop and ids[i] != pad]
        at = whole.find(_BEFORE, stop)
    return own


def _behind_template(engine: Any, ids: Sequence[int], line: str) -> list[int]:
    """The columns of a line behind a template that ends with a mark.

    Raises:
        UnsupportedModel: the template has no such mark.
    """
    written = [piece.replace("\u2581", " ") for piece in _pieces(engine.tokenizer, ids)]
    whole = "".join(written)
    at = whole.find(_START)
    if at < 0:
        raise UnsupportedModel(
            f"The template of this host's settings has no {_START}, so nobody can say where the prompt's words begin. Write it "
            "at the end of both templates of Lumina in the settings."
        )
    first = at + len(_START)
    return [i for i, end in enumerate(accumulate(map(len, written))) if end > first and written[i].strip("\n ")]


def _dropped(engine: Any, ids: Sequence[int], width: int) -> int:
    """How many of its first columns an encoder drops: its own rule, on columns that are their numbers."""
    if not hasattr(engine, "strip_template"):
        return 0
    numbers = torch.arange(len(ids), dtype=torch.float32)[:, None]
    # One of the two engines measures a column where it means to measure the text, so columns have their true width.
    given = numbers[None, None] if hasattr(engine, "vision_block") else numbers.expand(-1, width)
    kept = engine.strip_template(given, list(ids))
    return int(kept.reshape(-1)[0])


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return TokenizerVocabulary(tokenizer).convert_ids_to_tokens(list(ids))


class TokenizerVocabulary:
    """A tokenizer of transformers as `Prompt.from_ids` wants it; of a processor, the tokenizer that it holds."""

    def __init__(self, tokenizer: Any, start: int | None = None, end: int | None = None) -> None:
        self.bos_token_id, self.eos_token_id = start, end
        self._tokenizer: Any = getattr(tokenizer, "tokenizer", tokenizer)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        pieces: list[str] = self._tokenizer.convert_ids_to_tokens(ids)
        return pieces

    def get_added_vocab(self) -> dict[str, int]:
        return dict(self._tokenizer.get_added_vocab())
