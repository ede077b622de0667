"""Reads what a pipeline's transformer attends to into the recording that runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NothingRecorded, UnsupportedModel
from .accumulator import Accumulator
from .attention_call import AttentionCall
from .block_caches import may_be_cached
from .call_batching import CallBatch, CallPattern
from .compile_op import is_compiled
from .concept_reader import ConceptReader
from .family import Family
from .picture_text import PictureText, add_layers, add_output_row, add_picture_row, add_row, add_text_row
from .text_rows import EncodedText, match_rows
from .token_layout import RowLayout, TokenLayout
from .transformer_recording import TIMES, TransformerRecording

logger = logging.getLogger("daam_lens")
_KNOWN = 8
"""So many different arguments of a model are remembered with what they mean."""


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a model, as far as it is recorded.

    Attributes:
        layout: where its tokens stand.
        texts: for each row of its batch whose it is.
        keeping_self: those that keep the picture's attention to itself in this step.
        rows: of the layout, by the shapes of queries and keys that came.
        patterns: of calls that waited, by their layers, in all calls of this layout.
        attended: the layers that have attended in it so far.
        read: those of them that have attended to the text.
    """

    layout: TokenLayout
    texts: Sequence[PictureText | None]
    keeping_self: Sequence[Accumulator]
    patterns: dict[str, CallPattern]
    rows: dict[tuple[torch.Size, torch.Size], Sequence[RowLayout] | None] = field(default_factory=dict)
    attended: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _Known:
    """What arguments of a model mean.

    Attributes:
        values: these arguments.
        layout: where tokens stand.
        rows: whose the rows of the batch may be.
        patterns: of calls that waited, by their layers.
    """

    values: Any
    layout: TokenLayout
    rows: list[tuple[EncodedText, ...]]
    patterns: dict[str, CallPattern] = field(default_factory=dict)


class ModelRecorder:
    """Reads what one of a pipeline's transformers does into the recording that runs.

    Args:
        model: the transformer.
        family: what is known of it.
        number: which of the pipeline's transformers it is.
        current: gives the recording of the pipeline's call that runs, None where none does.
        failed: called once where recording stops.
        concepts: reads concepts beside the words, None where none are wanted.
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        number: int,
        current: Callable[[], TransformerRecording | None],
        failed: Callable[[Exception], None],
        concepts: ConceptReader | None = None,
    ) -> None:
        self._concepts = concepts
        self._model, self._family, self._number = getattr(model, "_orig_mod", model), family, number
        self._current, self._failed = current, failed
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._call: _Call | None = None
        self._recording: TransformerRecording | None = None
        modules = self._model.named_modules()
        attending = [name for name, part in modules if getattr(part, "processor", None) is not None]
        self._layers = {name for name in attending if family.is_text_layer(name)}
        self._picture_layers = {name: i for i, name in enumerate(filter(family.is_picture_layer, attending))}
        self._attended: set[str] = set()
        self._left_out = False
        self._prompted: dict[int, set[int]] = {}  # by the rows of a batch, the pictures whose prompts were in it
        self._numbers: dict[str, int] = {}
        self._batch, self._eager = CallBatch(False), not is_compiled(model)

    def begin(self, arguments: Mapping[str, Any]) -> bool:
        recording = self._current()
        if recording is None or recording.thread != threading.get_ident():
            return False
        if recording is not self._recording:
            keep = recording.recording.keep
            self._known, self._recording, self._attended, self._left_out = {}, recording, set(), False
            self._numbers, self._prompted = {}, {}
            self._batch = CallBatch(self._eager and not (keep.layers or keep.heads or keep.relations or keep.output))
        known, own = self._read(recording, arguments)
        layout, rows = known.layout, known.rows
        prompted = {text.image for row in rows for text in row if text.side == "prompt"}
        before = self._prompted.setdefault(len(rows), set())
        # A text of nobody's where a picture's prompt was: it was exchanged in the middle.
        exchanged = not all(rows) and before - prompted
        before |= prompted
        if not any(rows) or exchanged:
            raise NothingRecorded(
                f"The text that {type(self._model).__name__} was given is none of those that the pipeline encoded, so nobody "
                "knows whose it is. Give the pipeline the prompt itself, or embeddings made inside the trace."
            )
        columns = [self._family.text_columns(arguments, row, layout) for row in own]
        texts = recording.begin_call(rows, columns, arguments, self._family)
        prompts = [text.group.accumulator for text in texts if text is not None and text.group.side == "prompt"]
        self._call = _Call(layout, texts, [one for one in prompts if one.keeps_self_attention], known.patterns)
        self._batch.begin()
        if self._concepts is not None:
            self._concepts.begin(recording, arguments, layout, texts, own[0])
        return any(text is not None for text in texts)

    def wants(self, layer: str) -> bool:
        return self._family.is_text_layer(layer) or self._family.is_picture_layer(layer)

    def expects(self, layer: str) -> bool:
        place, current = self._picture_layers.get(layer), self._call
        return place is None or (current is not None and any(one.wants_joint_self(place) for one in current.keeping_self))

    def hold(self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> bool:
        current = self._call
        if current is None or current.keeping_self or (pattern := current.patterns.get(layer)) is None:
            return False
        if layer in current.read:
            return False
        found = pattern.tensors(args, kwargs, backend)
        if found is None or not self._batch.add_like(pattern, *found, backend):
            return False
        current.attended.add(layer)
        current.read.add(layer)
        if self._batch.full:
            self._work_off(current)
        return True

    def attention(self, layer: str, number: int, call: AttentionCall) -> None:
        recording, current = self._recording, self._call
        assert recording is not None and current is not None
        if layer in self._picture_layers:
            for index, text in enumerate(current.texts):
                if text is not None and number == 0:
                    add_picture_row(text, self._picture_layers[layer], current.layout, index, call)
            return
        current.attended.add(layer)
        if number and self._perturbs(layer):
            return
        shapes = call.q.shape, call.k.shape
        if shapes in current.rows:
            rows = current.rows[shapes]
        elif (rows := self._first_rows(layer, call, current.layout)) is None:
            rows = current.rows[shapes] = current.layout.of(layer, call)
        if rows is None:
            return
        if layer in current.read and not current.layout.rows_apart:
            raise UnsupportedModel(
                f"{layer} of {type(self._model).__name__} attended to the text more than once in one step, so nobody can say "
                "which answer painted the picture; its attention processor does that."
            )
        current.read.add(layer)
        texts = current.texts[: len(rows)]
        place = self._numbers.get(layer)
        if place is None:
            place = self._numbers[layer] = recording.layer(self._number, layer, call)
        if self._concepts is not None:
            self._concepts.attention(layer, place, call, rows)
        keeping = current.keeping_self  # no generator for a step that keeps none, which most are
        at_once = current.layout.rows_apart or (keeping and any(one.wants_joint_self(place) for one in keeping))
        at_once = at_once or len(texts) < len(current.texts)
        if not at_once and self._batch.add(place, call):
            if self._concepts is None and not self._perturbs(layer):
                current.patterns[layer] = CallPattern.of(place, call)
            if self._batch.full:
                self._work_off(current)
            return
        for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
            if text is None or (current.layout.rows_apart and index != number):
                continue
            at = 0 if current.layout.rows_apart else index
            add_row(text, place, current.layout, row, at, call)
            add_text_row(text, layer, current.layout, row, at, call)
            if text.group.accumulator.outputs is not None:
                recording.recording.or_without_outputs(add_output_row, text, place, current.layout, row, at, call)

    def _perturbs(self, layer: str) -> bool:
        """Whether a layer attends a second time, for the rows behind the others, whose attention is perturbed (PAG)."""
        processor = getattr(self._model.get_submodule(layer), "processor", None)
        return type(processor).__name__.startswith("PAG")

    def _first_rows(self, layer: str, call: AttentionCall, layout: TokenLayout) -> Sequence[RowLayout] | None:
        """The rows of a call that holds those of the batch that are not perturbed; None of any other call."""
        rows = layout.rows.get((call.queries, call.keys))
        apart = layout.rows_apart or layout.frames_apart
        if not rows or apart or not 0 < call.batch < len(rows) or not self._perturbs(layer):
            return None
        return rows[: call.batch]

    def _work_off(self, current: _Call) -> None:
        """The small calls that wait, each row of the batch for all layers at once."""
        for layers, call in self._batch.take():
            for index, (row, text) in enumerate(zip(current.layout.of("the model", call) or (), current.texts, strict=True)):
                if text is not None:
                    add_layers(text, layers, current.layout, row, index, call)

    def unread(self, layer: str, processor: str) -> None:
        if layer in self._picture_layers:
            return  # masks do without it
        if layer in self._attended and may_be_cached(self._model.get_submodule(layer)):
            return
        raise UnsupportedModel(
            f"{layer} of {type(self._model).__name__} ran without an attention that can be read; its processor is {processor}."
        )

    def end(self) -> None:
        current, self._call = self._call, None
        if self._concepts is not None:
            self._concepts.end()
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
        if self._concepts is not None:
            self._concepts.end()
        self._failed(error)

    def _read(self, recording: TransformerRecording, arguments: Mapping[str, Any]) -> tuple[_Known, list[Tensor]]:
        """What the arguments of a call mean, looked up where the same were given before, and its text."""
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
            found = _Known((arguments[self._family.text[0]], values), layout, match_rows(own, texts))
            if len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
        return found, own


def _identity(value: Any) -> Any:
    """What tells whether a tensor, or a list of them, is still the same one."""
    if isinstance(value, Tensor):
        return id(value), value._version if not value.is_inference() else 0
    return tuple(_identity(part) for part in value) if isinstance(value, (list, tuple)) else None


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_shape(part) for part in value)
    return type(value)
