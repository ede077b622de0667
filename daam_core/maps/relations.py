"""What the text attended to while a picture was made: the picture (where a word looks) and itself (which word leans on which).

Eq. 6 is image->text: the picture's queries on the text's keys. Where text and picture are one sequence, the same attention call
holds text->image and text->text, the text's queries on either's keys, normalised over all keys too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.precision import full_precision
from ..errors import DetailMissing
from ..prompt.prompt import Word
from ..types import Grid

MISSING = (
    "What the text attended to was not recorded. Record with `trace(pipe, relations=('text->image', 'text->text'))`, and a "
    "model whose text and picture are one sequence."
)


@dataclass(frozen=True, eq=False)
class Relations:
    """What one text of one picture attended to, summed over heads, layers and steps; tensors on the CPU.

    Attributes:
        text_to_image: per grid (h, w), float32 `[channels, h, w]`, summed over the queries of a channel; empty where it was not
            kept. Cells of a coarser grid than the picture's hold the mean over their positions.
        text_to_text: float32 `[channels, channels]` (query, key), summed over the queries and keys of a channel; None where it
            was not kept.
        num_queries: float32 `[channels]`: queries x heads x layers x steps of each channel.
    """

    text_to_image: Mapping[Grid, Tensor]
    text_to_text: Tensor | None
    num_queries: Tensor

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from self.text_to_image.values()
        if self.text_to_text is not None:
            yield self.text_to_text
        yield self.num_queries


def matrix(relations: Relations | None, words: Sequence[Word]) -> Tensor:
    """Which word leans on which: float32 `[words, words]` (query, key), 0 to 1: the probability with which a query of the one
    attends to the keys of the other, as the mean over its queries, heads, layers and steps. What a row lacks to 1 went to the
    picture, to other words and to start, end and padding.

    Raises:
        DetailMissing: it was not kept.
    """
    if relations is None or relations.text_to_text is None:
        raise DetailMissing(MISSING)
    select = torch.zeros(len(words), len(relations.num_queries))
    for i, word in enumerate(words):
        select[i, list(word.channels)] = 1
    with full_precision(select.device):
        counts = select @ relations.num_queries
        return select @ relations.text_to_text @ select.T / counts.clamp(min=1)[:, None]


@dataclass(frozen=True)
class LeaningWord:
    """What one word attends to in the text.

    Attributes:
        word: its label.
        most: the other word that it attends to most; None where there is no other.
        probability: with which it attends to that word, 0 to 1.
        itself: with which it attends to itself.
        words: with which it attends to any word of the table, itself among them; the rest of 1 goes to the picture, to start,
            end and padding, and to words outside the table.
    """

    word: str
    most: str | None
    probability: float
    itself: float
    words: float


def leanings(labels: Sequence[str], values: Tensor) -> list[LeaningWord]:
    """What each word leans on most, in the words' order.

    Args:
        labels: the words.
        values: float32 `[words, words]` (query, key), as `matrix` gives them.

    Example:
        >>> leanings(["red", "house"], torch.tensor([[0.5, 0.25], [0.0, 0.75]]))[0]
        LeaningWord(word='red', most='house', probability=0.25, itself=0.5, words=0.75)
    """
    found = []
    for i, (label, row) in enumerate(zip(labels, values.tolist(), strict=True)):
        others = [j for j in range(len(labels)) if j != i]
        most = max(others, key=row.__getitem__, default=None)
        found.append(
            LeaningWord(label, None if most is None else labels[most], 0.0 if most is None else row[most], row[i], sum(row))
        )
    return found


def leaning_lines(words: Sequence[LeaningWord]) -> list[str]:
    """The table as text, a line a word, and what its numbers are."""
    lines = [f"{'word':16s} {'itself':>8s}  leans most on"]
    lines += [f"{one.word:16s} {one.itself:8.2%}  {_on(one)}" for one in words]
    return [*lines, "per cent: of all that the word attends to, mean over its tokens, heads, layers and steps"]


def _on(word: LeaningWord) -> str:
    return "-" if word.most is None else f"{word.most} ({word.probability:.2%})"


def added(first: Relations | None, second: Relations | None) -> Relations | None:
    """The sums of two recordings of one text; None where one of them has none."""
    if first is None or second is None:
        return None
    both = first.text_to_text is not None and second.text_to_text is not None
    grids = first.text_to_image.keys() & second.text_to_image.keys()
    return Relations(
        {grid: first.text_to_image[grid] + second.text_to_image[grid] for grid in sorted(grids)},
        first.text_to_text + second.text_to_text if both else None,  # type: ignore[operator]
        first.num_queries + second.num_queries,
    )


def moved(relations: Relations, places: Tensor) -> Relations:
    """The same with other channels.

    Args:
        places: float32 `[channels, new channels]` of zeros and ones: where each channel goes.
    """
    with full_precision(places.device):
        return Relations(
            {grid: torch.einsum("chw,cd->dhw", x, places).contiguous() for grid, x in relations.text_to_image.items()},
            None if relations.text_to_text is None else places.T @ relations.text_to_text @ places,
            relations.num_queries @ places,
        )


def in_succession(parts: Sequence[Relations | None]) -> Relations | None:
    """Of several texts one after the other: start, end and padding added up, tokens in order; None where one has none."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not parts:
        return None
    tokens = [len(part.num_queries) - 3 for part in known]
    total, first, found = sum(tokens) + 3, 1, None
    for part, own in zip(known, tokens, strict=True):
        places = torch.zeros(own + 3, total)
        for old, new in ((0, 0), (own + 1, total - 2), (own + 2, total - 1), *((i + 1, first + i) for i in range(own))):
            places[old, new] = 1
        first += own
        here = moved(part, places)
        found = here if found is None else _united(found, here)
    return found


def _united(a: Relations, b: Relations) -> Relations:
    """Sums of texts that may have been shown to the picture at different grids."""
    summed = added(a, b)
    assert summed is not None
    return Relations({**a.text_to_image, **b.text_to_image, **summed.text_to_image}, summed.text_to_text, summed.num_queries)
