"""The words of a row of text that a UNet is given, from what the pipeline's tokenizers read when it was encoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..capture.tokenizer_hook import Tokenized
from ..errors import BadArgument
from ..prompt.compose import share_columns
from ..prompt.prompt import Prompt
from ..prompt.template import templated_prompt
from ..prompt.tokenization import CHUNK
from .encoded_prompts import Source

logger = logging.getLogger("daam_lens")


def encoded_words(pipe: Any, source: Source, columns: int) -> Prompt:
    """The words of a row that a pipeline encoded, in its `columns` columns.

    Of SDXL the words of both prompts, where they differ. Words by their column's number where the texts are not known, or
    were tokenized in another way.
    """
    encoding, name, index = source
    texts = [one[min(index, len(one) - 1)] for one in (encoding.texts.get(name), encoding.texts.get(f"{name}_2")) if one]
    prompts = []
    for text in dict.fromkeys(texts):
        token_row = _row_of(text, [row for row in encoding.tokens if len(row.ids) == columns], pipe)
        if token_row is None:
            token_row = _tokenized(text, columns, pipe)
        prompt = _words(text, token_row) if token_row is not None else None
        if prompt is not None:
            prompts.append(prompt)
    if not prompts:
        logger.warning("The prompt's words cannot be told from the %d columns of text: they go by number.", columns)
        return Prompt.by_index(columns)
    return share_columns(prompts)


def _row_of(text: str, rows: Sequence[Tokenized], pipe: Any) -> Tokenized | None:
    """What a tokenizer read of this text; one word of textual inversion becomes several."""
    expand = getattr(pipe, "maybe_convert_prompt", None)
    read: dict[int, str] = {}
    for row in rows:
        tokenizer = row.tokenizer
        if id(tokenizer) not in read:
            read[id(tokenizer)] = _plain(expand(text, tokenizer) if expand and hasattr(tokenizer, "tokenize") else text)
        if _plain(row.text) == read[id(tokenizer)]:
            return row
    return None


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def _tokenized(text: str, columns: int, pipe: Any) -> Tokenized | None:
    """A text that no tokenizer read, because zeros stand for it (SDXL's empty negative prompt): what it would have read."""
    tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
    if tokenizer is None:
        return None
    ids = tokenizer(text, padding="max_length", max_length=columns, truncation=True)["input_ids"]
    return Tokenized("tokenizer", tokenizer, text, tuple(ids), (True,) * len(ids)) if len(ids) == columns else None


def _words(text: str, row: Tokenized) -> Prompt | None:
    if row.ids[0] == getattr(row.tokenizer, "bos_token_id", None):
        return Prompt.from_ids(row.ids, row.tokenizer, text=text)
    return templated_prompt(row.ids, row.mask, range(len(row.ids)), row.tokenizer, text)


def given_text(texts: Sequence[str], rows: Sequence[Tensor], image: int) -> str:
    """Which of the texts given as `prompts=` a picture's embeddings were made of: one is all pictures', several are those of
    as many prompts, of each of which pictures were made one after the other.

    Args:
        rows: the embeddings of every picture.
        image: the picture's number.

    Raises:
        BadArgument: they are neither, or pictures that would share a text have different embeddings.
    """
    each, rest = divmod(len(rows), len(texts))
    if len(texts) > 1 and (rest or not all(torch.equal(row, rows[i - i % each]) for i, row in enumerate(rows))):
        raise BadArgument(
            f"`prompts=` are {len(texts)} texts, and the embeddings are those of {len(rows)} pictures: give one text for all "
            "of them, or one for each prompt that they were made of."
        )
    return texts[image // each]


def given_words(pipe: Any, text: str, columns: int) -> Prompt:
    """The words of a text whose embeddings somebody else made, 75 tokens between a start and an end token in each 77 columns.

    Raises:
        BadArgument: the text has another number of columns than the embeddings, or the pipeline has no tokenizer.
    """
    tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
    if tokenizer is None or tokenizer.bos_token_id is None:
        raise BadArgument(f"{type(pipe).__name__} has no CLIP tokenizer, so `prompts=` cannot be read; leave it out.")
    expand = getattr(pipe, "maybe_convert_prompt", None)
    ids = list(tokenizer(expand(text, tokenizer) if expand else text, add_special_tokens=False).input_ids)
    room = CHUNK - 2
    needed = max(1, -(-len(ids) // room)) * CHUNK
    if columns == CHUNK:
        ids = ids[:room]  # encoders cut off what comes behind the first 77 columns, or go on with the next
    elif columns % CHUNK or needed > columns:
        raise BadArgument(
            f"The text given as `prompts=` takes {needed} columns, and the embeddings have {columns}. Give the text that they "
            "were made of, without weights."
        )
    chunks = [_chunk(ids[at : at + room], tokenizer) for at in range(0, columns // CHUNK * room, room)]
    return Prompt.from_ids(chunks, tokenizer, text=text)


def _chunk(ids: Sequence[int], tokenizer: Any) -> list[int]:
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return [start, *ids, end, *[end] * (CHUNK - 2 - len(ids))]
