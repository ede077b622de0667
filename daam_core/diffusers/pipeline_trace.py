"""What every trace of a pipeline keeps track of: its calls, in their own thread, and what its `encode_prompt` gave out."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..attention.concepts import ConceptRule
from ..capture.buffers import StoreOptions
from ..capture.class_hook import ClassHook, Finish
from ..capture.concept_texts import ConceptTexts
from ..capture.recording import Recording
from ..capture.tokenizer_hook import Tokenized, TokenizerHook
from ..prompt.concepts import Concept
from ..types import Side, Size
from .attention_trace import AttentionTrace, Generation
from .encoded_prompts import Encoding
from .encodings import (
    add_encoding,
    batches_of,
    copied,
    dropped_of,
    rows_of,
    texts_of,
    untemplated,
)
from .outputs import output_pictures, output_size
from .pipeline_call import CallRecording, PipelineCall, add_given_embeddings, call_arguments
from .scheduler_steps import class_that_steps, latents_of, steps_are_unknown, timestep_of
from .videos import REFERENCES, REFERENCES_BEHIND, output_videos, reference_frames, references_behind

ENCODERS = ("encode_prompt", "encode_prompt_multiple_images")
"""What pipelines call the method that makes a prompt's embeddings."""
_EARLIER = 8
"""So many calls of `encode_prompt` are remembered, for embeddings that come back as `prompt_embeds`."""


class PipelineTrace(AttentionTrace):
    """A trace that hears its own pipeline, in the thread and time of that pipeline's own call."""

    def __init__(
        self,
        pipe: Any,
        keep: StoreOptions,
        negative: bool,
        concepts: tuple[Concept, ...] = (),
        concept_rule: ConceptRule = "prompt",
    ) -> None:
        super().__init__(pipe, keep, negative)
        self._concepts, self._concept_rule = concepts, concept_rule
        self._encoded_concepts: ConceptTexts | None = None
        self._encoded_in: PipelineCall | None = None
        self._sides: tuple[Side, ...] = ("prompt", "negative") if negative else ("prompt",)
        self._current: PipelineCall | None = None
        self._earlier: list[Encoding] = []
        self._encoding = False
        self._outside = 0  # steps of its scheduler that were no call's

    def _running_recording(self) -> Recording | None:
        running = self._running()
        return None if running is None else running.recording

    def _attach(self) -> None:
        pipe = self._pipe
        self._tokenizers = TokenizerHook(pipe)
        self._stack.callback(self._tokenizers.remove)
        self._hook(type(pipe), "__call__", self._begin)
        self._attach_encoders()
        self._schedulers: set[type] = set()
        self._attach_scheduler()

    def _attach_scheduler(self) -> None:
        """Put a hook on what ends a step; a pipeline may be given another scheduler between two calls."""
        scheduler = getattr(self._pipe, "scheduler", None)
        kind = class_that_steps(scheduler) or type(scheduler)
        if kind not in self._schedulers:
            self._schedulers.add(kind)
            self._hook(kind, "step", self._begin_scheduler)

    def _steps_are_told(self, call: PipelineCall) -> bool:
        """Whether every step of a call's scheduler was seen, so that a second look at one time was none of them."""
        return call.stepped and class_that_steps(getattr(self._pipe, "scheduler", None)) in self._schedulers

    def _record(self, call: PipelineCall) -> CallRecording:
        """What is to be recorded of a call that begins."""
        raise NotImplementedError

    def _attach_encoders(self) -> None:
        """Put hooks on what makes the prompts' embeddings."""
        if (connectors := getattr(self._pipe, "connectors", None)) is not None:
            self._hook(type(connectors), "forward", self._begin_connectors)
        for name in ENCODERS:
            self._hook(type(self._pipe), name, functools.partial(self._begin_encoding, name))

    def _hook(self, owner: type, name: str, begin: Callable[..., Finish | None]) -> None:
        if callable(getattr(owner, name, None)):
            self._stack.callback(ClassHook(owner, name, begin).remove)

    def _running(self) -> CallRecording | None:
        """The recording of the call that runs in this thread."""
        call = self._current
        if call is None or call.recording.thread != threading.get_ident() or call.recording.recording.failure:
            return None
        return call.recording

    def _painting(self) -> CallRecording | None:
        """The same, None inside a callback of the user's: what runs there does not paint this picture."""
        running = self._running()
        return None if running is None or self._current is None or self._current.callbacks.running() else running

    def _fail(self, error: Exception) -> None:
        if self._current is not None:
            self._current.recording.fail(error)

    # -- the pipeline's call ----------------------------------------------------------------------------------------

    def _begin(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if pipe is not self._pipe or self._current is not None:
            return None  # another pipeline; inside another call of this one, or in another thread
        given = self._arguments(args, kwargs)
        if given is None:
            return None  # the pipeline will say what is wrong with its arguments
        self._attach_scheduler()
        # Copied: some pipelines write into the lists they are given.
        given = {name: list(x) if isinstance(x, list) else x for name, x in given.items()}
        self._current = PipelineCall(given, self._record)
        try:
            add_given_embeddings(self._current, self._earlier)
        except Exception as error:
            self._fail(error)
        return self._finish_call

    def _arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments of the pipeline's call by name, defaults too; None where it does not take them."""
        return call_arguments(self._pipe, args, kwargs)

    def _finish_call(self, output: Any) -> None:
        call, self._current = self._current, None
        if call is None:
            return
        recording: Recording = call.recording.recording
        try:
            call.recording.end_step()
            if call.recording.repeats and not recording.failure and not self._steps_are_told(call):
                raise steps_are_unknown(getattr(self._pipe, "scheduler", None))
            recording.release()
        except Exception as error:
            recording.fail(error)
        if not recording.num_steps and not recording.failure:
            return  # the pipeline raised, or was asked for nothing
        pictures = None if call.given.get("output_type") == "latent" else output_pictures(output)
        # The whole call's arguments would keep its embeddings and pictures.
        given = {name: value for name, value in call.given.items() if isinstance(value, (int, str))}
        given[REFERENCES] = reference_frames(call.given, self._pipe)
        given[REFERENCES_BEHIND] = references_behind(call.given, self._pipe)
        made = Generation(recording, recording.num_images, pictures=pictures, given=given)
        try:
            made.size, made.videos = self._size(call, output), output_videos(output, call.given)
        except Exception as error:
            recording.fail(error)
        self._generations.append(made)

    def _size(self, call: PipelineCall, output: Any) -> Size:
        """(height, width) in pixels of what the call made."""
        return output_size(output, call.given, self._pipe, call.recording.recording)

    def _begin_scheduler(self, scheduler: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        running = self._painting()
        if running is None:
            self._outside += self._current is None and scheduler is getattr(self._pipe, "scheduler", None)
            return None
        if self._current is not None:
            self._current.stepped = True
        timestep = timestep_of(type(scheduler), args, kwargs)
        try:
            running.given_latents.require_painted(latents_of(type(scheduler), args, kwargs))
        except Exception as error:
            self._fail(error)

        def finish(output: Any) -> None:
            try:
                running.end_step(timestep)
            except Exception as error:
                self._fail(error)

        return finish

    # -- its prompts ------------------------------------------------------------------------------------------------

    def _begin_encoding(self, name: str, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if pipe is not self._pipe or not self._may_encode():
            return None
        signature = inspect.signature(getattr(type(pipe), name))
        texts = texts_of(signature, (pipe, *args), kwargs)
        call, typed = self._current, texts.get("prompt")
        if call is not None and typed is not None and name != ENCODERS[0]:
            texts["prompt"] = untemplated(typed, call.given, call.encoded.num_parts("prompt") == 0)
        return self._encode(
            lambda output, _: (texts, batches_of(output)),
            lambda: self._after_encoding(signature.bind(pipe, *args, **kwargs).arguments),
        )

    def _may_encode(self) -> bool:
        """Whether an encoder that is called now is called for the first time, by this pipeline, in this thread."""
        call = self._current
        return not self._encoding and (call is None or call.recording.thread == threading.get_ident())

    def _encode(
        self,
        read: Callable[[Any, list[Tokenized]], tuple[dict[str, list[str] | None], list[list[Tensor]]]],
        then: Callable[[], None] = lambda: None,
    ) -> Finish:
        """Record the tokenizers until the end of an encoder's call, of whose output, and what the tokenizers read,
        `read` makes texts and rows; `then` is called behind it, and what it encodes is not taken for a prompt."""
        record = self._tokenizers.record()
        tokens = record.__enter__()
        self._encoding = True

        def finish(output: Any) -> None:
            record.__exit__(None, None, None)
            if output is None:
                self._encoding = False
                return  # it raised
            try:
                texts, batches = read(output, tokens)
                self._on_encoding(Encoding(texts, [copied(batch) for batch in batches], tokens, dropped_of(self._pipe)))
                then()
            except Exception as error:
                self._fail(error)
            finally:
                self._encoding = False

        return finish

    def _begin_connectors(self, connectors: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        """A model between encoder and transformer, which makes a new row of each."""
        running = self._running()
        if running is None or self._current is None or connectors is not getattr(self._pipe, "connectors", None):
            return None
        encoded, before = self._current.encoded, rows_of(args[0] if args else next(iter(kwargs.values()), None))
        # With registers it moves what is no padding to the front; without, its columns are not known.
        known = getattr(getattr(connectors, "video_connector", None), "learnable_registers", None) is not None

        def finish(output: Any) -> None:
            try:
                encoded.connect(before, copied(batches_of(output)[0]) if output is not None else [], known)
            except Exception as error:
                self._fail(error)

        return finish

    def _after_encoding(self, given: Mapping[str, Any]) -> None:
        """The pipeline's `encode_prompt` was called with these arguments; what is encoded here is not taken for its prompts.

        Concepts are, once a call of the pipeline.
        """
        call = self._current
        if not self._concepts or (call is not None and self._encoded_in is call):
            return
        self._encoded_concepts, self._encoded_in = None, call
        try:
            with torch.no_grad():  # a call that is made for a gradient would keep the encoder's whole graph
                self._encoded_concepts = self._encode_concepts(given)
        except Exception as error:
            if call is not None:
                call.recording.recording.fail_concepts(error)

    def _encode_concepts(self, given: Mapping[str, Any]) -> ConceptTexts:
        """The concepts as the pipeline's own encoders make them, beside a prompt that was encoded with these arguments."""
        raise NotImplementedError

    def _on_encoding(self, encoding: Encoding) -> None:
        if not encoding.outputs:
            return
        self._earlier = [*self._earlier[1 - _EARLIER :], encoding]
        if self._current is not None:
            add_encoding(self._current.encoded, encoding, self._current.given, bool(self._current.recording.recording.groups))
