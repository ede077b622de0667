"""What else an attention of text and picture in one sequence tells: the picture to itself, the text to either."""

from __future__ import annotations

from math import prod

from .accumulator import Accumulator
from .attention_call import AttentionCall
from .buffers import BatchSlice
from .picture_text import is_joint
from .token_layout import RowLayout, TokenLayout


def add_self(into: Accumulator, layout: TokenLayout, row: RowLayout, rows: slice, a: AttentionCall) -> None:
    """The whole picture's attention to itself, all frames together, where the layer has it among its keys.

    Args:
        row: where the tokens of these pictures stand.
        rows: which rows of the batch they are.
    """
    if layout.text_apart or not is_joint(layout, row, a):
        return
    frames, height, width = layout.patches
    n = prod(layout.patches)
    part, keys = a.part(rows, row.picture, n, slice(row.picture, row.picture + n))
    part = part.heads_apart()
    into.add_joint_self((height, width), part.q, part.k, part.heads, part.scale, keys, part.bias, part.lse, frames)


def add_text(into: Accumulator, layout: TokenLayout, row: RowLayout, source: BatchSlice, a: AttentionCall) -> None:
    """What the text attends to, where it has queries in this layer."""
    if layout.text_apart or not is_joint(layout, row, a):
        return
    _, height, width = layout.patches
    text = slice(row.text, row.text + len(row.columns))
    part, _ = a.part(source.index, text.start, len(row.columns), slice(0, a.keys))
    picture = slice(row.picture, row.picture + prod(layout.patches))
    into.add_text_queries((height, width), part.heads_apart(), source, picture, text)
