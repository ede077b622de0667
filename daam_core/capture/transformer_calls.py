"""One call of a transformer while it is recorded: what its arguments mean, and what of it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .accumulator import Accumulator
from .call_batching import CallPattern
from .joint_batching import JointBatch
from .picture_text import PictureText
from .text_rows import EncodedText, Snapshot
from .token_layout import RowLayout, TokenLayout

Waiting = list[tuple[int, RowLayout, PictureText, JointBatch | None]]
"""Whose the rows of a batch are: (index, row, text, where its layers wait); None where they do not."""


@dataclass(eq=False, slots=True)
class KnownCall:
    """What arguments of a model mean.

    Attributes:
        values: these arguments.
        layout: where tokens stand.
        rows: whose the rows of the batch may be.
        own: the text of each row.
        columns: how many columns each text argument of the family has, for each of the rows.
        prompted: the pictures whose prompts are among the rows.
        copies: for a row that holds a text once more, see `text_rows.copies_of`.
        patterns: of calls that waited, by their layers.
        waiting: for calls that waited side by side, by their kind, layers and texts.
    """

    values: Snapshot
    layout: TokenLayout
    rows: list[tuple[EncodedText, ...]]
    own: list[Tensor]
    columns: list[tuple[int, ...]]
    prompted: set[int]
    copies: dict[int, tuple[int, ...]]
    patterns: dict[str, CallPattern] = field(default_factory=dict)
    waiting: dict[tuple[Any, ...], Waiting] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class RunningCall:
    """One call of a model, as far as it is recorded.

    Attributes:
        known: what its arguments mean.
        layout: where its tokens stand.
        texts: for each row of its batch whose it is.
        keeping_self: those that keep the picture's attention to itself in this step.
        patterns: of calls that may wait, by their layers.
        rows: of the layout, by the shapes of queries and keys that came.
        attended: the layers that have attended in it so far.
        read: those of them that have attended to the text.
    """

    known: KnownCall
    layout: TokenLayout
    texts: Sequence[PictureText | None]
    keeping_self: Sequence[Accumulator]
    patterns: dict[str, CallPattern]
    rows: dict[tuple[torch.Size, torch.Size], Sequence[RowLayout] | None] = field(default_factory=dict)
    attended: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


def identity_of(value: Any) -> Any:
    """What tells whether a tensor, or a list of them, is still the same one."""
    if isinstance(value, Tensor):
        return id(value), value._version if not value.is_inference() else 0
    return tuple(identity_of(part) for part in value) if isinstance(value, (list, tuple)) else None


def shape_of(value: Any) -> Any:
    """What tells whether an argument is of the same size and kind."""
    if isinstance(value, Tensor):
        return value.shape
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(shape_of(part) for part in value)
    return type(value)
