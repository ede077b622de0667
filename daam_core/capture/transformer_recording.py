"""Attention of a pipeline's transformers, summed for each picture and each of its two texts, while the pipeline runs once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NothingRecorded, UnsupportedModel
from ..prompt.compose import without_padding_behind
from ..prompt.prompt import Prompt
from ..types import Side
from .accumulator import Accumulator
from .attention_call import AttentionCall
from .block_caches import may_be_cached
from .buffers import BatchSlice, StoreOptions
from .call_batching import CallBatch
from .compile_op import is_compiled
from .family import Family
from .recording import Recording
from .text_rows import EncodedText, match_rows
from .token_layout import RowLayout, TokenLayout

logger = logging.getLogger("daam_lens")
_KNOWN = 8
"""So many different arguments of a model are remembered with what they mean."""
TIMES = ("timestep", "timesteps", "t")
"""What transformers call the argument that says how noisy the picture is."""


class PictureText:
    """One text of one picture, and the sums of the attention to it.

    Padding behind the text is not recorded: of some 512 columns it is nearly all, and costs as much as it has columns.

    Attributes:
        columns: how many columns the model is given, padding included.
        prompt: the words of its columns, without the padding behind them.
        group: its part of the recording.
        pending: whether something of the step that runs is in it.
        only_keys: a layer whose attention has text among its keys alone, if there was one.
    """

    def __init__(self, recording: Recording, side: Side, image: int, prompt: Prompt) -> None:
        self.columns, self.prompt, self.pending = prompt.length, without_padding_behind(prompt), False
        self.only_keys = ""
        self.group = recording.add_group(side, [image], [self.prompt], lambda keys, number: self._selections[number])
        self._selections: list[Tensor] = []
        self._known: dict[RowLayout, tuple[BatchSlice, slice]] = {}
        self._numbers: dict[tuple[int, ...], int] = {}

    def source(self, row: RowLayout) -> tuple[BatchSlice, slice]:
        """What the accumulator is to select from one row's text keys, and which keys of the attention these are."""
        if row not in self._known:
            if len(self._known) >= _KNOWN**2:
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
        if relations.wanted and relations.num_queries is None and self.only_keys:
            raise UnsupportedModel(
                f"What the text attends to cannot be recorded: in {self.only_keys} only the picture has queries, and the text "
                "keys. Record without the relations text->image and text->text."
            )

    def _selection(self, columns: Sequence[int]) -> Tensor:
        """float32 `[1, text keys, channels]` of zeros and ones: the channel of the maps that each text key goes into."""
        channels = self.prompt.column_channels()
        picked = torch.zeros(1, len(columns), self.prompt.num_channels)
        for key, column in enumerate(columns):
            if 0 <= column < self.prompt.length:
                picked[0, key, channels[column]] = 1.0
        return picked


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a model, as far as it is recorded.

    Attributes:
        layout: where its tokens stand.
        texts: for each row of its batch whose it is.
        keeping_self: those that keep the picture's attention to itself in this step.
        rows: of the layout, by the shapes of queries and keys that came.
        attended: the layers that have attended in it so far.
    """

    layout: TokenLayout
    texts: Sequence[PictureText | None]
    keeping_self: Sequence[Accumulator]
    rows: dict[tuple[torch.Size, torch.Size], Sequence[RowLayout] | None] = field(default_factory=dict)
    attended: set[str] = field(default_factory=set)


class TransformerRecording:
    """One call of a pipeline, in the thread that makes it.

    Attributes:
        recording: groups, layers and steps; a group for each text of each picture.

    Args:
        texts: gives what the pipeline has encoded so far.
        prompt: gives the words of an encoded row, for so many columns of each of the family's text arguments.
        keep: what to keep apart.
        sides: whose texts are recorded.
    """

    def __init__(
        self,
        texts: Callable[[], Sequence[EncodedText]],
        prompt: Callable[[EncodedText, Family, Sequence[int]], Prompt],
        keep: StoreOptions,
        sides: Sequence[Side] = ("prompt", "negative"),
    ) -> None:
        self.thread = threading.get_ident()
        self.recording = Recording(keep)
        self.texts, self.sides = texts, sides
        self._prompt = prompt
        self._own: dict[tuple[Side, int, int], PictureText] = {}
        self._time: Any = None

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded.

        Raises:
            UnsupportedModel: what the text attends to was asked for, and it has no queries in any layer.
        """
        pending = [text for text in self._own.values() if text.pending]
        if not pending:
            return
        for text in pending:
            text.check_relations()
        self.recording.end_step(self._time if timestep is None else timestep)
        for text in self._own.values():
            text.pending = False

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""
        self.recording.fail(error)
        self._own.clear()

    def begin_call(
        self, rows: Sequence[Sequence[EncodedText]], columns: Sequence[Sequence[int]], given: Mapping[str, Any], family: Family
    ) -> list[PictureText | None]:
        """Whose sums the rows of a call go into; ends the step where the next one begins.

        Args:
            rows: whose the rows of the batch may be, the likeliest first; nobody's where there is none.
            columns: how many columns each text argument of the family has, for each of the rows.
            given: the call's arguments.
        """
        found = [
            self._first([self._of(text, family, own) for text in texts if text.side in self.sides])
            for texts, own in zip(rows, columns, strict=True)
        ]
        time = next((given[name] for name in TIMES if given.get(name) is not None), None)
        if any(text is not None and text.pending for text in found):
            if _same_time(time, self._time):
                # The same step once more: another guidance, with something of the model left out.
                return [None if text is None or text.pending else text for text in found]
            self.end_step()
        self._time = time
        return found

    @staticmethod
    def _first(texts: Sequence[PictureText]) -> PictureText | None:
        """Where prompt and negative prompt are the same text, the one that this step has not had."""
        return next((text for text in texts if not text.pending), texts[0] if texts else None)

    def _of(self, row: EncodedText, family: Family, columns: Sequence[int]) -> PictureText:
        key = (row.side, row.image, row.part)
        if key not in self._own:
            prompt = self._prompt(row, family, columns)
            self._own[key] = PictureText(self.recording, row.side, row.image, prompt)
        text = self._own[key]
        if text.columns != sum(columns):
            raise NothingRecorded(f"The same text has {text.columns} columns, and {sum(columns)} later: there is no map.")
        return text

    def layer(self, model: int, name: str, call: AttentionCall) -> int:
        """The number of a layer of the pipeline's transformer `model`."""
        shown = name if model == 0 else f"transformer_{model + 1}.{name}"
        return self.recording.layer((model, name), shown, "mid", call.heads, call.scale)


def add_row(text: PictureText, layer: int, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """Add row `index` of the batch of one attention call: all frames at once, or one by one where each is a row."""
    text.pending = True
    source, text_keys = text.source(row)
    if text_keys.stop == text_keys.start:
        return
    accumulator = text.group.accumulator
    wants_self = text.group.side == "prompt" and accumulator.wants_joint_self(layer) and is_joint(layout, row, call)
    frames, height, width = layout.patches
    rows = [(frame, index * frames + frame) for frame in range(frames)] if layout.frames_apart else [(0, index)]
    queries = height * width if layout.frames_apart else frames * height * width
    for frame, at in rows:
        part, keys = call.part(slice(at, at + 1), row.picture, queries, text_keys)
        accumulator.add_joint(
            layer, (height, width), part.q, part.k, part.heads, part.scale, source, keys, part.bias, part.lse, frame, frames
        )
        if wants_self:
            shown = queries // (height * width)
            part, keys = call.part(slice(at, at + 1), row.picture, queries, slice(row.picture, row.picture + queries))
            accumulator.add_joint_self(
                (height, width), part.q, part.k, part.heads, part.scale, keys, part.bias, part.lse, shown
            )


def add_text_row(text: PictureText, layer: str, layout: TokenLayout, row: RowLayout, index: int, call: AttentionCall) -> None:
    """What the text of row `index` of the batch attends to, in the same attention call, if the text has queries there."""
    accumulator = text.group.accumulator
    source, keys = text.source(row)
    if not accumulator.relations.wanted or keys.stop == keys.start:
        return
    if not is_joint(layout, row, call):
        text.only_keys = text.only_keys or layer
        return
    frames, height, width = layout.patches
    each = 1 if layout.frames_apart else frames
    for at in range(index * frames, (index + 1) * frames) if layout.frames_apart else (index,):
        part, _ = call.part(slice(at, at + 1), keys.start, keys.stop - keys.start, slice(0, call.keys))
        picture = slice(row.picture, row.picture + each * height * width)
        accumulator.add_text_queries((height, width), part, source, picture, keys)


def is_joint(layout: TokenLayout, row: RowLayout, call: AttentionCall) -> bool:
    """Whether text and picture are one sequence, so that a token stands at the same place among queries and keys."""
    frames, height, width = layout.patches
    end = row.picture + height * width * (1 if layout.frames_apart else frames)
    apart = end <= row.text or row.text + len(row.columns) <= row.picture
    return call.queries == call.keys and apart


class ModelRecorder:
    """Reads what one of a pipeline's transformers does into the recording that runs.

    Args:
        model: the transformer.
        family: what is known of it.
        number: which of the pipeline's transformers it is.
        current: gives the recording of the pipeline's call that runs, None where none does.
        failed: called once where recording stops.
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        number: int,
        current: Callable[[], TransformerRecording | None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._model, self._family, self._number = getattr(model, "_orig_mod", model), family, number
        self._current, self._failed = current, failed
        self._known: dict[tuple[Any, ...], tuple[Any, TokenLayout, list[tuple[EncodedText, ...]]]] = {}
        self._call: _Call | None = None
        self._recording: TransformerRecording | None = None
        modules = self._model.named_modules()
        self._layers = {name for name, part in modules if getattr(part, "processor", None) is not None and self.wants(name)}
        self._attended: set[str] = set()
        self._left_out = False
        self._numbers: dict[str, int] = {}
        self._batch, self._eager = CallBatch(False), not is_compiled(model)

    def begin(self, arguments: Mapping[str, Any]) -> bool:
        recording = self._current()
        if recording is None or recording.thread != threading.get_ident():
            return False
        if recording is not self._recording:
            keep = recording.recording.keep
            self._known, self._recording, self._attended, self._left_out = {}, recording, set(), False
            self._numbers = {}
            self._batch = CallBatch(self._eager and not (keep.layers or keep.heads or keep.relations))
        layout, rows, own = self._read(recording, arguments)
        if not any(rows):
            raise NothingRecorded(
                f"The text that {type(self._model).__name__} was given is none of those that the pipeline encoded, so nobody "
                "knows whose it is. Give the pipeline the prompt itself, or embeddings made inside the trace."
            )
        columns = [self._family.text_columns(arguments, row, layout) for row in own]
        texts = recording.begin_call(rows, columns, arguments, self._family)
        own_texts = [text for text in texts if text is not None and text.group.side == "prompt"]
        self._call = _Call(layout, texts, [x.group.accumulator for x in own_texts if x.group.accumulator.keeps_self_attention])
        self._batch.begin()
        return any(text is not None for text in texts)

    def wants(self, layer: str) -> bool:
        return self._family.is_text_layer(layer)

    def attention(self, layer: str, number: int, call: AttentionCall) -> None:
        recording, current = self._recording, self._call
        assert recording is not None and current is not None
        current.attended.add(layer)
        shapes = call.q.shape, call.k.shape
        if shapes in current.rows:
            rows = current.rows[shapes]
        else:
            rows = current.rows[shapes] = current.layout.of(layer, call)
        if rows is None:
            return
        place = self._numbers.get(layer)
        if place is None:
            place = self._numbers[layer] = recording.layer(self._number, layer, call)
        at_once = current.layout.rows_apart or any(one.wants_joint_self(place) for one in current.keeping_self)
        if not at_once and self._batch.add(place, call):
            if self._batch.full:
                self._work_off(current)
            return
        for index, (row, text) in enumerate(zip(rows, current.texts, strict=True)):
            if text is None or (current.layout.rows_apart and index != number):
                continue
            at = 0 if current.layout.rows_apart else index
            add_row(text, place, current.layout, row, at, call)
            add_text_row(text, layer, current.layout, row, at, call)

    def _work_off(self, current: _Call) -> None:
        """The small calls that wait, each row of the batch for all layers at once."""
        for layers, call in self._batch.take():
            for index, (row, text) in enumerate(zip(current.layout.of("the model", call) or (), current.texts, strict=True)):
                if text is not None:
                    add_row(text, layers[0], current.layout, row, index, call)
                    text.group.accumulator.note_layers(layers, current.layout.patches[1:])

    def unread(self, layer: str, processor: str) -> None:
        if layer in self._attended and may_be_cached(self._model.get_submodule(layer)):
            return
        raise UnsupportedModel(
            f"{layer} of {type(self._model).__name__} ran without an attention that can be read; its processor is {processor}."
        )

    def end(self) -> None:
        current, self._call = self._call, None
        if current is None:
            return
        self._work_off(current)
        self._attended |= current.attended
        if len(current.attended) < len(self._layers) and not self._left_out:
            self._left_out = True
            logger.warning(
                "%d of the %d attention layers of %s did not attend in a step, as with caches that skip blocks: the maps are "
                "sums of fewer terms.", len(self._layers) - len(current.attended), len(self._layers),
                type(self._model).__name__,
            )  # fmt: skip

    def failed(self, error: Exception) -> None:
        self._call = None
        self._failed(error)

    def _read(
        self, recording: TransformerRecording, arguments: Mapping[str, Any]
    ) -> tuple[TokenLayout, list[tuple[EncodedText, ...]], list[Tensor]]:
        """The layout of a call, whose its rows are, and its text; looked up where the same was given before."""
        own = self._family.text_rows(arguments)
        texts = recording.texts()
        values = [arguments.get(name) for name in self._family.layout_arguments]
        key = (
            len(texts),
            tuple(_identity(value) for value in (arguments[self._family.text[0]], *values)),
            tuple((name, _shape(value)) for name, value in arguments.items() if name not in TIMES),
        )
        found = self._known.get(key)
        if found is None:
            layout = self._family.layout(self._model, arguments)
            if len(own) != layout.batch:
                raise UnsupportedModel(f"{type(self._model).__name__} was given {len(own)} texts for {layout.batch} pictures.")
            # The values are kept, so that no other tensor can get their identity.
            found = ((arguments[self._family.text[0]], values), layout, match_rows(own, texts))
            if len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
        return found[1], found[2], own


def _identity(value: Any) -> Any:
    """What tells whether a tensor, or a list of them, is still the same one."""
    if isinstance(value, Tensor):
        return id(value), value._version if not value.is_inference() else 0
    return tuple(_identity(part) for part in value) if isinstance(value, (list, tuple)) else None


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return tuple(_shape(part) for part in value)
    return value if isinstance(value, (int, float, str, bool)) else type(value).__name__


def _same_time(one: Any, other: Any) -> bool:
    """Whether two timesteps are the same; where there are none, they are."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape:  # the step once more, with fewer rows of the batch
            return torch.equal(one.amax().to(other.device), other.amax())
        return torch.equal(one.to(other.device), other)
    return bool(one == other)
