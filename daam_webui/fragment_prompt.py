"""A prompt that was encoded as fragments of one weight each, tokenized one by one and laid out in chunks of 77 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from daam_core.errors import BadPrompt
from daam_core.prompt.prompt import Prompt
from daam_core.prompt.tokenization import CHUNK, Tokenizer

Fragment = tuple[str, float]
"""A text and its weight."""
Tokens = tuple[int, ...]
TokenizeFragments = Callable[[Sequence[str], Sequence[float]], tuple[Sequence[int], Sequence[float]]]
"""Fragments and their weights -> ids and weights of as many whole chunks as they take."""
BREAK = "BREAK"
_T = TypeVar("_T")


def sections_of(fragments: Sequence[Fragment], breaks: bool) -> list[list[Fragment]]:
    """The parts of a prompt that are encoded apart, those without a fragment left out.

    Args:
        breaks: whether the fragment BREAK ends a part; else it is text like any other.
    """
    sections: list[list[Fragment]] = [[]]
    for text, weight in fragments:
        if breaks and text == BREAK:
            sections.append([])
        else:
            sections[-1].append((text, weight))
    return [section for section in sections if section]


def fragment_prompt(
    fragments: Sequence[Fragment],
    tokenize: TokenizeFragments,
    tokenizer: Tokenizer,
    columns: int,
    text: str,
    breaks: bool = True,
) -> tuple[Prompt, list[Tokens]]:
    """The words of a prompt in the `columns` columns of its embeddings, and the ids of each of its sections.

    Columns behind the last section are an empty text, which makes prompts of several lengths alike.

    Args:
        tokenizer: what `tokenize` tokenizes with.
        text: as it was typed.

    Raises:
        BadPrompt: the text takes more columns, or the columns are not whole chunks.
    """
    ids: list[int] = []
    weights: list[float] = []
    sections: list[Tokens] = []
    for section in sections_of(fragments, breaks):
        found, found_weights = tokenize([part for part, _ in section], [weight for _, weight in section])
        sections.append(tuple(int(token) for token in found))
        ids += sections[-1]
        weights += [float(weight) for weight in found_weights]
    if len(ids) > columns or columns % CHUNK or len(ids) % CHUNK:
        raise BadPrompt(
            f"The prompt's words take {len(ids)} columns and the model is given {columns}, so nobody knows which column is "
            "whose word."
        )
    empty = [tokenizer.bos_token_id, *[tokenizer.eos_token_id] * (CHUNK - 1)]
    behind = (columns - len(ids)) // CHUNK
    ids += [int(token) for token in empty if token is not None] * behind
    weights += [1.0] * CHUNK * behind
    return Prompt.from_ids(_chunks(ids), tokenizer, _chunks(weights), text), sections


def _chunks(values: Sequence[_T]) -> list[list[_T]]:
    return [list(values[at : at + CHUNK]) for at in range(0, len(values), CHUNK)]
