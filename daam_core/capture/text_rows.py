"""Which rows of a model's batch are whose: found by comparing the text of each row with what the encoder gave out."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..types import Side


@dataclass(frozen=True, eq=False)
class EncodedText:
    """One row that a text encoder gave out.

    Attributes:
        side: whether it is the prompt or the negative prompt.
        image: for which picture, from 0.
        part: which of the prompts that this picture is made of in succession.
        rows: `[columns, …]`, what the model is to be given.
    """

    side: Side
    image: int
    part: int
    rows: Tensor


class Snapshot:
    """Arguments of a model as they were, kept so that no other tensor can get their identity.

    PyTorch counts how often a tensor was written into, but not of those that are made in inference mode: of them the numbers
    are kept.
    """

    def __init__(self, *values: Any) -> None:
        self._tensors = _tensors(values)
        self._uncounted = [(x, x.clone()) for x in self._tensors if x.is_inference()]

    def holds(self) -> bool:
        """Whether the tensors whose writes nobody counts are what they were."""
        return all(torch.equal(now, before) for now, before in self._uncounted)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, (list, tuple)):
        return [found for part in value for found in _tensors(part)]
    return [value] if isinstance(value, Tensor) else []


def match_rows(given: Sequence[Tensor], known: Sequence[EncodedText]) -> list[tuple[EncodedText, ...]]:
    """The encoded text of each row of a batch, and behind it those of the other side that are exactly alike; nothing for a
    row that is none of the texts, or one of them once more.

    Args:
        given: `[columns, …]` for each row of the batch. It may hold padding behind the encoded columns, or lack columns at
            the end.
        known: what was encoded. Where several are alike, rows are theirs in order.
    """
    free = list(range(len(known)))
    found: list[tuple[EncodedText, ...]] = []
    for alike in _equal(given, known):
        # Most columns alike first; of those, in order.
        best = max(free, key=lambda i: (alike[i], -i), default=None)
        if best is None or alike[best] == 0:
            found.append(())
            continue
        free.remove(best)
        own = known[best]
        twins = [known[i] for i, n in enumerate(alike) if n == alike[best] and known[i].side != own.side]
        found.append((own, *twins))
    return found


def _equal(given: Sequence[Tensor], known: Sequence[EncodedText]) -> list[list[int]]:
    """For each given row and each known text how many columns are alike, 0 where one of the common ones is not.

    Rows of the very same length count for one more. All comparisons cost one wait for the device.
    """
    rows = [without_single_axes(row) for row in given]
    columns, marks = [], []
    for row in rows:
        for text in known:
            own = without_single_axes(text.rows)
            n = min(len(row), len(own))
            same_kind = row.shape[1:] == own.shape[1:] and n > 0
            columns.append(n + (len(row) == len(own)) if same_kind else 0)
            if same_kind:
                marks.append((row[:n] == own[:n].to(row.device, row.dtype)).all())
            else:
                marks.append(torch.zeros((), dtype=torch.bool, device=row.device))
    alike = torch.stack(marks).tolist() if marks else []
    counts = [n if same else 0 for n, same in zip(columns, alike, strict=True)]
    return [counts[i * len(known) : (i + 1) * len(known)] for i in range(len(rows))]


def copies_of(given: Sequence[Tensor], own: Container[int]) -> dict[int, tuple[int, ...]]:
    """The rows of a batch that hold a text once more, beside those that are somebody's: for each of them the latter.

    Args:
        given: `[columns, …]` for each row of the batch.
        own: the rows that are somebody's.
    """
    found: dict[int, tuple[int, ...]] = {}
    for i, row in enumerate(given):
        if i not in own:
            alike = [j for j, other in enumerate(given) if j in own and row.shape == other.shape and torch.equal(row, other)]
            if alike:
                found[i] = tuple(alike)
    return found


def without_single_axes(row: Tensor) -> Tensor:
    """A row without axes of size 1 ahead, which some pipelines add."""
    while row.dim() > 2 and row.shape[0] == 1:
        row = row[0]
    return row


def match_blocks(given: Sequence[Tensor], known: Sequence[EncodedText]) -> dict[tuple[Side, int], slice]:
    """Which rows of a batch are the prompt's pictures and which the negative prompt's: (side, part) -> consecutive rows.

    Guidance stacks one row a picture of each text, in an order that differs between pipelines: [negative, prompt],
    [prompt, negative, negative], [negative, prompt, prompt perturbed]. A block of rows is a text's where every row of it
    equals, in order, what was encoded for every picture. Of several blocks the first is taken: a later one is perturbed
    (PAG) or lacks a picture that it is edited from (InstructPix2Pix). Where both texts are the same, the prompt takes the
    first block and the negative prompt the next.

    Args:
        given: `[columns, …]` for each row of the batch.
        known: what was encoded.
    """
    parts: dict[tuple[Side, int], list[int]] = {}
    for number, text in enumerate(known):
        parts.setdefault((text.side, text.part), []).append(number)
    alike = _equal(given, known)
    found: dict[tuple[Side, int], slice] = {}
    for key in sorted(parts, key=lambda key: (key[0] != "prompt", key[1])):
        own = sorted(parts[key], key=lambda number: known[number].image)
        blocks = [slice(first, first + len(own)) for first in range(0, len(given) - len(own) + 1, len(own))]
        fitting = [
            block
            for block in blocks
            if all(alike[block.start + i][number] > len(given[block.start + i]) for i, number in enumerate(own))
        ]
        free = [block for block in fitting if block not in found.values()]
        if any(side == key[0] and block in fitting for (side, _), block in found.items()):
            continue  # an earlier prompt of the same side is the same text
        if fitting:
            found[key] = (free or fitting)[0]
    return found
