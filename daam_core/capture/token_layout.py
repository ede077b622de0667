"""Where text and picture stand among the queries and keys of a transformer's attention, proved by counting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..errors import NothingRecorded, UnsupportedModel
from .attention_call import AttentionCall
from .host_words import NODES, HostWords

Patches = tuple[int, int, int]
"""(frames, height, width) of the picture in patches."""


@dataclass(frozen=True, eq=False)
class RowLayout:
    """One row of the batch.

    Attributes:
        picture: the first query that is the picture's; they follow row by row, frame by frame.
        text: the first key that is text.
        columns: which column of the model's text each key from there on is; -1 is none of them.
    """

    picture: int
    text: int
    columns: Sequence[int]


@dataclass(frozen=True)
class TokenLayout:
    """One call of a transformer.

    Attributes:
        patches: (frames, height, width) of the picture.
        columns: how many columns of text the model was given.
        rows: the rows of its batch, for each (queries, keys) that an attention with text in it has; None where an
            attention of that size is known to hold no text.
        frames_apart: the frames are rows of the attention's batch, those of one picture in succession.
        rows_apart: each row of the batch is an attention call of its own, in order.
        text_apart: the picture attends to the text in an attention of its own, whose keys hold nothing of the picture.
        open_ended: an uncounted number of tokens may follow the picture's.
        repeats: how many attentions of one block have the text among their keys, one after the other.
        counted: for each attention of a call that has the text among its keys, in order, whether it is the picture's own and
            not that of a control beside it; empty where all are, and their number is not known.
        ahead: tokens ahead of the picture's that ComfyUI counts to it, a reference.
        blocks: how many blocks there are, where sizes may tie and calls have to be counted; 0 is unknown.
    """

    patches: Patches
    columns: int
    rows: Mapping[tuple[int, int], Sequence[RowLayout] | None] = field(default_factory=dict)
    frames_apart: bool = False
    rows_apart: bool = False
    text_apart: bool = False
    open_ended: bool = False
    repeats: int = 1
    counted: tuple[bool, ...] = ()
    ahead: int = 0
    blocks: int = 0

    @property
    def batch(self) -> int:
        """Rows of the model's batch."""
        return max((len(rows) for rows in self.rows.values() if rows), default=0)

    def of(self, layer: str, call: AttentionCall) -> Sequence[RowLayout] | None:
        """The rows of one attention call of a layer; None where it holds no text.

        Raises:
            UnsupportedModel: its size is not what the layout says.
        """
        size = (call.queries, call.keys)
        if size not in self.rows:
            wanted = " or ".join(f"{n} queries on {k} keys" for n, k in self.rows)
            raise UnsupportedModel(
                f"The attention of {layer} has {call.queries} queries on {call.keys} keys, and by its layout it would have "
                f"{wanted}. Something changes the tokens of this model, so there is no map."
            )
        rows = self.rows[size]
        if rows is None:
            return None
        batch = 1 if self.rows_apart else len(rows) * (self.patches[0] if self.frames_apart else 1)
        if call.batch != batch:
            raise UnsupportedModel(
                f"The attention of {layer} has {call.batch} rows in its batch, and the model {batch}. "
                "Something changes the batch inside the model (FasterCache does, which leaves out the negative prompt), so "
                "there is no map. Paint without it: `disable_cache()` takes a cache off a transformer."
            )
        return rows

    def and_without_text(self, *sizes: tuple[int, int]) -> TokenLayout:
        """The same, with (queries, keys) of attentions that are known to hold no text, unless they are as large as one that
        does."""
        return replace(self, rows={**dict.fromkeys(sizes), **self.rows})

    # -- hosts that do not say which layer an attention is of ---------------------------------------------------------

    @property
    def tied(self) -> bool:
        """Whether the picture's attention to itself is as large as that to the text, so that calls have to be counted."""
        return self.text_apart and any(n == keys for (n, keys), rows in self.rows.items() if rows)

    @property
    def expected(self) -> str:
        """The sizes of attentions with text in them, for sentences."""
        sizes = [f"{n} queries on {keys} keys" for (n, keys), rows in self.rows.items() if rows]
        return " or ".join(sizes)

    def find(self, queries: int, keys: int, words: HostWords = NODES) -> Sequence[RowLayout] | None:
        """The rows of an attention of this size, of a layer that has no name; None where it holds no text.

        Raises:
            NothingRecorded: text and picture stand in it, and their number is another than the layout says.
        """
        if (queries, keys) in self.rows:
            return self.rows[queries, keys]
        for (n, own), rows in self.rows.items():
            if rows and self.open_ended and own == keys and queries >= n:
                return rows
        if self._holds_text(queries, keys):
            raise NothingRecorded(
                f"an attention has {queries} queries on {keys} keys, and by what the model was given it would have "
                f"{self.expected}. {words.at_the_beginning} changes the tokens of this model, so that nobody can say which are "
                f"words. {words.advice}"
            )
        return None

    def _holds_text(self, queries: int, keys: int) -> bool:
        """Whether an attention of an unknown size holds what is to be read; others are somebody's own (adapters, sound)."""
        if queries <= prod(self.patches):
            return False
        return any(own == keys for (_, own), rows in self.rows.items() if rows) if self.text_apart else queries == keys

    def check_host(self, options: Mapping[str, Any]) -> None:
        """Hold the layout against what ComfyUI itself says of a call's tokens, where it does.

        Raises:
            NothingRecorded: they differ.
        """
        given = options.get("img_slice")
        if self.text_apart or given is None:
            return
        known = {(row.picture - self.ahead, keys) for (_, keys), rows in self.rows.items() for row in rows or ()}
        if tuple(given) not in known:
            wanted = " or ".join(f"{first} to {end}" for first, end in sorted(known))
            raise NothingRecorded(
                f"ComfyUI says that the picture's tokens are {given[0]} to {given[1]}, and by what the model was given they "
                f"would be {wanted}. Another node changes the tokens of this model. Record without that node"
            )


def joint(
    batch: int,
    patches: Patches,
    columns: Sequence[int] | int,
    *,
    text_first: bool,
    before: int = 0,
    between: int = 0,
    after: int = 0,
    total: int | None = None,
) -> TokenLayout:
    """Text and picture in one sequence, alike in every row.

    Args:
        columns: the columns of text in the order of their keys, or how many there are.
        text_first: whether the text comes before the picture.
        before, between, after: tokens that are neither, ahead of both, between them and behind them.
        total: columns of the model's text, where keys leave some out or repeat some.
    """
    columns = range(columns) if isinstance(columns, int) else columns
    n, text = prod(patches), len(columns)
    row = (
        RowLayout(before + text + between, before, columns) if text_first else RowLayout(before, before + n + between, columns)
    )
    size = before + between + after + text + n
    return TokenLayout(patches, text if total is None else total, {(size, size): (row,) * batch})


def cross(
    batch: int, patches: Patches, columns: int, *, first_query: int = 0, queries: int | None = None, first_key: int = 0
) -> TokenLayout:
    """The picture attends to the text in an attention of its own, alike in every row.

    Args:
        first_query: tokens ahead of the picture's.
        queries: all queries, where more follow the picture's.
        first_key: keys ahead of the text's.
    """
    n = first_query + prod(patches) if queries is None else queries
    row = RowLayout(first_query, first_key, range(columns))
    return TokenLayout(patches, columns, {(n, first_key + columns): (row,) * batch}, text_apart=True)


def ragged(patches: Patches, columns: int, rows: Sequence[RowLayout], size: int) -> TokenLayout:
    """Text and picture in one sequence of `size` tokens, at different places in each row."""
    return TokenLayout(patches, columns, {(size, size): tuple(rows)})


def latent_patches(latent: Tensor, patch: Any, frames: int | None = None) -> Patches:
    """Patches of a latent `[batch, c, (frames,) h, w]`.

    Args:
        patch: an integer, (height, width) or (frames, height, width).
        frames: its frames, where they are not the third axis.

    Raises:
        UnsupportedModel: it is not made of whole patches.
    """
    sizes = tuple(patch) if isinstance(patch, (tuple, list)) else (int(patch), int(patch))
    t, h, w = (1, *sizes) if len(sizes) == 2 else sizes
    frames = frames if frames is not None else latent.shape[2] if latent.dim() == 5 else 1
    shape = (frames, latent.shape[-2], latent.shape[-1])
    if any(n % p for n, p in zip(shape, (t, h, w), strict=True)):
        raise UnsupportedModel(f"A latent of {shape} positions is not made of whole patches of {(t, h, w)}.")
    return frames // t, shape[1] // h, shape[2] // w


def grid_patches(ids: Tensor, tokens: int) -> tuple[Patches, int]:
    """(patches of the picture, tokens of references behind it), from the positions that the tokens were given.

    Args:
        ids: `[tokens, axes]` or `[batch, tokens, axes]`; the axes are (which picture, row, column, …).
        tokens: how many tokens of pictures there are.

    Raises:
        UnsupportedModel: the positions are not a picture row by row and then others.
    """
    ids = (ids[0] if ids.dim() == 3 else ids).detach().cpu()
    if len(ids) != tokens:
        raise UnsupportedModel(f"The model was given {tokens} tokens of pictures and the positions of {len(ids)}.")
    own = ids[:, 0] == ids[0, 0]
    n = tokens if bool(own.all()) else int((~own).int().argmax())
    places = ids[:n, 1:3] - ids[0, 1:3]
    height, width = (int(x) + 1 for x in places.amax(0))
    rows = torch.arange(height).repeat_interleave(width)
    wanted = torch.stack([rows, torch.arange(width).repeat(height)], 1)
    if height * width != n or not torch.equal(places, wanted.to(places.dtype)):
        raise UnsupportedModel("The picture's tokens do not stand row by row, so there is no map.")
    return (1, height, width), tokens - n


def counted(mask: Tensor) -> list[int]:
    """How many columns of text each row of a mask `[batch, columns]` keeps."""
    return [int(n) for n in mask.detach().bool().sum(-1).tolist()]
