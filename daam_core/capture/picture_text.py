"""One text of one picture while a transformer runs: which keys are its columns, and what of an attention is added to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention.output import heads_beside
from ..errors import UnsupportedModel
from ..prompt.compose import without_padding_behind
from ..prompt.prompt import Prompt
from ..types import Side
from .attention_call import AttentionCall
from .buffers import BatchSlice
from .call_batching import HeldCalls
from .joint_batching import JointBatch, JointPlace
from .recording import Recording
from .token_layout import RowLayout, TokenLayout

_KNOWN = 64
"""So many different rows of a layout are remembered with what they mean."""


class PictureText:
    """One text of one picture, and the sums of the attention to it.

    Padding behind the text is not recorded: of some 512 columns it is nearly all, and costs as much as it has columns.

    Attributes:
        columns: how many columns the model is given, padding included.
        prompt: the words of its columns, without the padding behind them.
        group: its part of the recording.
        pending: whether something of the step that runs is in it.
        no_relations: why a layer's attention does not tell what the text attends to, if there was one.
    """

    def __init__(self, recording: Recording, side: Side, image: int, prompt: Prompt) -> None:
        self.columns, self.prompt, self.pending = prompt.length, without_padding_behind(prompt), False
        self.no_relations = ""
        self.group = recording.add_group(side, [image], [self.prompt], lambda keys, number: self._selections[number])
        self._selections: list[Tensor] = []
        self._known: dict[RowLayout, tuple[BatchSlice, slice]] = {}
        self._numbers: dict[tuple[int, ...], int] = {}

    def source(self, row: RowLayout) -> tuple[BatchSlice, slice]:
        """What the accumulator is to select from one row's text keys, and which keys of the attention these are."""
        if row not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            wanted = [i for i, column in enumerate(row.columns) if 0 <= column < self.prompt.length]
            first, last = (wanted[0], wanted[-1] + 1) if wanted else (0, 0)
            columns = tuple(row.columns[first:last])
            if columns not in self._numbers:
                self._numbers[columns] = len(self._selections)
                self._selections.append(self._selection(columns))
            self._known[row] = BatchSlice(0, 1, self._numbers[columns]), slice(row.text + first, row.text + last)
        return self._known[row]

    def check_relations(self) -> None:
        """After a step.

        Raises:
            UnsupportedModel: what the text attends to was asked for, and it has no queries in any layer.
        """
        relations = self.group.accumulator.relations
        if relations.wanted and relations.num_queries is None and self.no_relations:
            raise UnsupportedModel(
                f"What the text attends to cannot be recorded: {self.no_relations}. Record without the relations text->image "
                "and text->text."
            )

    def _selection(self, columns: Sequence[int]) -> Tensor:
        """float32 `[1, text keys, channels]` of zeros and ones: the channel of the maps that each text key goes into."""
        channels = self.prompt.column_channels()
        picked = torch.zeros(1, len(columns), self.prompt.num_channels)
        for key, column in enumerate(columns):
            if 0 <= column < self.prompt.length:
                picked[0, key, channels[column]] = 1.0
        return picked


def add_row(text: PictureText, layer: int, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """Add row `index` of the batch of one attention call: all frames at once, or one by one where each is a row."""
    text.pending = True
    source, text_keys = text.source(row)
    if text_keys.stop == text_keys.start:
        return
    accumulator = text.group.accumulator
    frames, height, width = layout.patches
    for frame, at, queries in _places(layout, index):
        part, keys = call.part(slice(at, at + 1), row.picture, queries, text_keys)
        accumulator.add_joint(
            layer, (height, width), part.q, part.k, part.heads, part.scale, source, keys, part.bias, part.lse, frame, frames
        )


def add_self_row(text: PictureText, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """The picture's attention to itself in the same call, where its tokens are among the keys."""
    if not is_joint(layout, row, call) or layout.text_apart:
        return
    _, height, width = layout.patches
    for _, at, queries in _places(layout, index):
        part, keys = call.part(slice(at, at + 1), row.picture, queries, slice(row.picture, row.picture + queries))
        part = part.heads_apart()
        text.group.accumulator.add_joint_self(
            (height, width), part.q, part.k, part.heads, part.scale, keys, part.bias, part.lse, queries // (height * width)
        )


def _places(layout: TokenLayout, index: int) -> list[tuple[int, int, int]]:
    """(first frame, row of the attention's batch, queries) of the picture at row `index` of the model's batch."""
    frames, height, width = layout.patches
    if layout.frames_apart:
        return [(frame, index * frames + frame, height * width) for frame in range(frames)]
    return [(0, index, frames * height * width)]


def waiting_batch(text: PictureText, calls: HeldCalls, layout: TokenLayout, row: RowLayout, index: int) -> JointBatch | None:
    """Where several layers side by side wait for those of other steps, None where they are to be worked off at once."""
    (frames, height, width), (source, text_keys) = layout.patches, text.source(row)
    if frames != 1 or text_keys.stop == text_keys.start:
        return None
    place = JointPlace(index, slice(row.picture, row.picture + height * width), text_keys)
    return text.group.accumulator.joint_batch((height, width), calls, place, source)


def add_text_row(text: PictureText, layer: str, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """What the text of row `index` of the batch attends to, in the same attention call, if the text has queries there."""
    accumulator = text.group.accumulator
    source, keys = text.source(row)
    if not accumulator.relations.wanted or keys.stop == keys.start:
        return
    frames, height, width = layout.patches
    each = 1 if layout.frames_apart else frames
    if not is_joint(layout, row, call):
        why = "only the picture has queries, and the text keys"
        if frames == 1 and call.queries == height * width + (keys.stop - keys.start):
            why = "there are keys without queries, such as a reference's, beside those of the text and the picture"
        text.no_relations = text.no_relations or f"in {layer} {why}"
        return
    for at in range(index * frames, (index + 1) * frames) if layout.frames_apart else (index,):
        part, _ = call.part(slice(at, at + 1), keys.start, keys.stop - keys.start, slice(0, call.keys))
        picture = slice(row.picture, row.picture + each * height * width)
        accumulator.add_text_queries((height, width), part, source, picture, keys)


def add_output_row(text: PictureText, layer: int, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """What the attention gave out for row `index` of the batch: the picture's places against what it gave out for the text's
    tokens, or against the text's values where the text has no queries there.

    Raises:
        UnsupportedModel: of a video, or where the output is not there.
    """
    source, keys = text.source(row)
    height, width = layout.patches[1:]
    if keys.stop > keys.start or layout.patches[0] > 1:
        picture, values = output_parts(layout, row, slice(index, index + 1), keys, call)
        text.group.accumulator.add_output(layer, (height, width), picture, values, source)


def output_parts(layout: TokenLayout, row: RowLayout, rows: slice, keys: slice, call: AttentionCall) -> tuple[Tensor, Tensor]:
    """What the attention gave out for the picture's places, `[rows, n, heads * d]`, and what they are held against,
    `[rows, keys, heads * d]`; see `add_output_row`.

    Args:
        row: where the tokens of these rows stand.
        rows: of the batch.
        keys: which keys are the text.

    Raises:
        UnsupportedModel: of a video, or where the output is not there.
    """
    frames, height, width = layout.patches
    if frames > 1:
        raise UnsupportedModel("of videos the output of the attention is not read")
    if call.v is None or call.output is None:
        raise UnsupportedModel("an attention of this model did not give out one tensor with a row for each query")
    output = heads_beside(call.output[rows])
    if is_joint(layout, row, call):
        values = output[:, keys]
    else:
        own = call.v[rows]
        if not call.packed_heads and own.shape[1] != call.heads:
            own = own.repeat_interleave(call.heads // own.shape[1], 1)
        values = heads_beside(own)[:, keys]
    return output[:, row.picture : row.picture + height * width], values


def add_picture_row(text: PictureText, layer: int, layout: TokenLayout, index: int, call: AttentionCall) -> None:
    """The picture's attention to itself of row `index` of the batch, in a model whose text has an attention of its own.

    Nothing is added where its tokens are not those that attend to the text, or its rows not those of the batch.

    Args:
        layer: which of these layers it is.
    """
    accumulator = text.group.accumulator
    found = next((rows for (n, _), rows in layout.rows.items() if rows and n == call.queries == call.keys), None)
    if text.group.side != "prompt" or not accumulator.wants_joint_self(layer) or found is None or call.batch != len(found):
        return
    frames, height, width = layout.patches
    first, n = found[index].picture, frames * height * width
    part, keys = call.part(slice(index, index + 1), first, n, slice(first, first + n))
    accumulator.add_joint_self((height, width), part.q, part.k, part.heads, part.scale, keys, part.bias, part.lse, frames)


def is_joint(layout: TokenLayout, row: RowLayout, call: AttentionCall) -> bool:
    """Whether text and picture are one sequence, so that a token stands at the same place among queries and keys."""
    frames, height, width = layout.patches
    end = row.picture + height * width * (1 if layout.frames_apart else frames)
    apart = end <= row.text or row.text + len(row.columns) <= row.picture
    return call.queries == call.keys and apart
