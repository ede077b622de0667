"""Reads what a pipeline's transformer attends to into the recording that runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import NothingRecorded, UnsupportedModel
from .attention_call import AttentionCall
from .block_caches import may_be_cached
from .call_batching import CallBatch, HeldCalls
from .compile_op import is_compiled
from .concept_reader import ConceptReader
from .family import Family
from .parallelism import require_all_heads
from .picture_text import PictureText, add_output_row, add_picture_row, add_row, add_self_row, add_text_row, waiting_batch
from .proportions import require_proportions
from .text_rows import Snapshot, copies_of, match_rows
from .token_layout import RowLayout, TokenLayout
from .transformer_calls import KnownCall, RunningCall, Waiting, identity_of, shape_of
from .transformer_recording import TIMES, TransformerRecording

logger = logging.getLogger("daam_lens")
_KNOWN = 8
"""So many different arguments of a model are remembered with what they mean."""


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
        self._known: dict[tuple[Any, ...], KnownCall] = {}
        self._call: RunningCall | None = None
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
        known = self._read(recording, arguments)
        if known is None:
            return False
        layout, rows = known.layout, known.rows
        before = self._prompted.setdefault(len(rows), set())
        # A text of nobody's where a picture's prompt was: it was exchanged in the middle.
        exchanged = not all(rows) and before - known.prompted
        before |= known.prompted
        if not any(rows) or exchanged:
            raise NothingRecorded(
                f"The text that {type(self._model).__name__} was given is none of those that the pipeline encoded, so nobody "
                "knows whose it is. Give the pipeline the prompt itself, or embeddings made inside the trace."
            )
        recording.grid = recording.grid or layout.patches[1:]
        require_proportions(recording.grid, layout.patches[1:])
        texts = recording.begin_call(known, arguments, self._family)
        prompts = [text.group.accumulator for text in texts if text is not None and text.group.side == "prompt"]
        keeping = [one for one in prompts if one.keeps_self_attention]
        # Where frames are rows of their own, each gives its own attention to itself.
        self._call = RunningCall(known, layout, texts, keeping, {} if keeping and layout.frames_apart else known.patterns)
        self._batch.begin()
        if self._concepts is not None:
            self._concepts.begin(recording, arguments, layout, texts, known.own[0])
        return any(text is not None for text in texts)

    def wants(self, layer: str) -> bool:
        return self._family.is_text_layer(layer) or self._family.is_picture_layer(layer)

    def expects(self, layer: str) -> bool:
        place, current = self._picture_layers.get(layer), self._call
        return place is None or (current is not None and any(one.wants_joint_self(place) for one in current.keeping_self))

    def hold(self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> bool:
        current = self._call
        if current is None or (pattern := current.patterns.get(layer)) is None:
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
        if number and (self._perturbs(layer) or self._adapts(layer)):
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
        layout = current.layout
        at_once = layout.rows_apart or len(texts) < len(current.texts) or (layout.frames_apart and current.keeping_self)
        if not at_once and self._batch.add(place, call):
            if self._concepts is None and not self._perturbs(layer):
                current.patterns[layer] = self._batch.pattern(place, call)
            if self._batch.full:
                self._work_off(current)
            return
        for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
            if text is None or (layout.rows_apart and index != number):
                continue
            at, accumulator = 0 if layout.rows_apart else index, text.group.accumulator
            add_row(text, place, layout, row, at, call)
            if accumulator in current.keeping_self and accumulator.wants_joint_self(place):
                add_self_row(text, layout, row, at, call)
            add_text_row(text, layer, layout, row, at, call)
            if accumulator.outputs is not None:
                recording.recording.or_without_outputs(add_output_row, text, place, layout, row, at, call)

    def _adapts(self, layer: str) -> bool:
        """Whether a layer attends to picture prompts apart, behind its attention to the text (diffusers' IP-Adapters)."""
        kind = type(getattr(self._model.get_submodule(layer), "processor", None))
        return "IPAdapter" in kind.__name__ and kind.__module__.startswith("diffusers.")

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

    def _work_off(self, current: RunningCall) -> None:
        """The small calls that wait, each row of the batch for all layers at once."""
        for calls in self._batch.take():
            for index, row, text, batch in self._waiting(current, calls):
                text.pending = True
                if batch is not None:
                    batch.add(calls)
                else:
                    add_row(text, calls.layers[0], current.layout, row, index, calls.as_one())
                    text.group.accumulator.note_layers(calls.layers, current.layout.patches[1:])
                if current.keeping_self:
                    self._add_self(text, current, calls, row, index)
            calls.users -= 1

    def _waiting(self, current: RunningCall, calls: HeldCalls) -> Waiting:
        key = calls.kind, calls.layers, *current.texts
        found = current.known.waiting.get(key)
        if found is None or any(batch is not None and not batch.enabled for *_, batch in found):
            rows = current.layout.of("the model", calls.as_one()) or ()
            found = [
                (index, row, text, waiting_batch(text, calls, current.layout, row, index))
                for index, (row, text) in enumerate(zip(rows, current.texts, strict=True))
                if text is not None
            ]
            if len(current.known.waiting) >= _KNOWN:
                current.known.waiting.clear()
            current.known.waiting[key] = found
        return found

    def _add_self(self, text: PictureText, current: RunningCall, calls: HeldCalls, row: RowLayout, index: int) -> None:
        """The picture's attention to itself, of those of these layers that are to give it."""
        accumulator = text.group.accumulator
        if accumulator not in current.keeping_self:
            return
        wanted = [place for place, layer in enumerate(calls.layers) if accumulator.wants_joint_self(layer)]
        if wanted:
            add_self_row(text, current.layout, row, index, calls.as_one(wanted))

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

    def _read(self, recording: TransformerRecording, arguments: Mapping[str, Any]) -> KnownCall | None:
        """What the arguments of a call mean, looked up where the same were given before; None where it paints nothing."""
        family, texts = self._family, recording.texts()
        text, values = arguments[family.text[0]], [arguments.get(name) for name in family.layout_arguments]
        key = (
            len(texts),
            identity_of(text),
            *map(identity_of, values),
            *((name, shape_of(value)) for name, value in arguments.items() if name not in TIMES),
        )
        found = self._known.get(key)
        if found is None or not found.values.holds():
            require_all_heads(self._model)
            layout, own = family.layout(self._model, arguments), family.text_rows(arguments)
            if layout is None:
                return None
            if len(own) != layout.batch:
                raise UnsupportedModel(f"{type(self._model).__name__} was given {len(own)} texts for {layout.batch} pictures.")
            rows = match_rows(own, texts)
            columns = [family.text_columns(arguments, row, layout) for row in own]
            prompted = {text.image for row in rows for text in row if text.side == "prompt"}
            copies = {} if all(rows) else copies_of(own, {i for i, row in enumerate(rows) if row})
            found = KnownCall(Snapshot(text, values), layout, rows, own, columns, prompted, copies)
            if len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
        return found
