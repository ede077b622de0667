"""What every trace of a pipeline keeps track of: its calls, in their own thread, and what its `encode_prompt` gave out."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..capture.buffers import StoreOptions
from ..capture.class_hook import ClassHook, Finish
from ..capture.recording import Recording
from ..capture.tokenizer_hook import TokenizerHook
from ..types import Side, Size
from .attention_trace import AttentionTrace, Generation
from .encoded_prompts import EncodedPrompts, Encoding
from .outputs import output_pictures, output_size

_EARLIER = 8
"""So many calls of `encode_prompt` are remembered, for embeddings that come back as `prompt_embeds`."""


class CallRecording(Protocol):
    """What is recorded of one call of a pipeline.

    Attributes:
        thread: the thread that makes the call.
        recording: groups, layers and steps.
    """

    thread: int
    recording: Recording

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded."""

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""


class PipelineCall:
    """One call of the pipeline while it runs.

    Attributes:
        given: its arguments by name, as they were before it.
        encoded: what was encoded in it, and before it.
        recording: what is recorded of it.
    """

    def __init__(self, given: Mapping[str, Any], record: Callable[[PipelineCall], CallRecording]) -> None:
        self.given, self.encoded = given, EncodedPrompts()
        self.recording = record(self)


class PipelineTrace(AttentionTrace):
    """A trace that hears its own pipeline, in the thread and time of that pipeline's own call."""

    def __init__(self, pipe: Any, keep: StoreOptions, negative: bool) -> None:
        super().__init__(pipe, keep, negative)
        self._sides: tuple[Side, ...] = ("prompt", "negative") if negative else ("prompt",)
        self._current: PipelineCall | None = None
        self._earlier: list[Encoding] = []
        self._encoding = False

    def _attach(self) -> None:
        pipe = self._pipe
        self._tokenizers = TokenizerHook(pipe)
        self._stack.callback(self._tokenizers.remove)
        self._hook(type(pipe), "__call__", self._begin)
        self._hook(type(pipe), "encode_prompt", self._begin_encoding)
        self._hook(type(getattr(pipe, "scheduler", None)), "step", self._begin_scheduler)

    def _record(self, call: PipelineCall) -> CallRecording:
        """What is to be recorded of a call that begins."""
        raise NotImplementedError

    def _hook(self, owner: type, name: str, begin: Callable[..., Finish | None]) -> None:
        if callable(getattr(owner, name, None)):
            self._stack.callback(ClassHook(owner, name, begin).remove)

    def _running(self) -> CallRecording | None:
        """The recording of the call that runs in this thread."""
        call = self._current
        if call is None or call.recording.thread != threading.get_ident() or call.recording.recording.failure:
            return None
        return call.recording

    def _fail(self, error: Exception) -> None:
        if self._current is not None:
            self._current.recording.fail(error)

    # -- the pipeline's call ----------------------------------------------------------------------------------------

    def _begin(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if pipe is not self._pipe or self._current is not None:
            return None  # another pipeline; inside another call of this one, or in another thread
        try:
            bound = inspect.signature(type(pipe).__call__).bind(pipe, *args, **kwargs)
        except TypeError:
            return None  # the pipeline will say what is wrong with its arguments
        bound.apply_defaults()
        # Copied: some pipelines write into the lists they are given.
        given = {name: list(x) if isinstance(x, list) else x for name, x in bound.arguments.items()}
        self._current = PipelineCall(given, self._record)
        try:
            self._take_embeddings(self._current)
        except Exception as error:
            self._fail(error)
        return self._finish_call

    def _take_embeddings(self, call: PipelineCall) -> None:
        """Embeddings that come as arguments; what they were made of, where the trace saw that."""
        sides: tuple[tuple[Side, str], ...] = (("prompt", "prompt_embeds"), ("negative", "negative_prompt_embeds"))
        for side, name in sides:
            rows = _rows(call.given.get(name))
            if rows:
                known = next((e for e in self._earlier if any(_same_rows(rows, batch) for batch in e.outputs)), None)
                call.encoded.add(side, rows, known, "prompt" if known is None else _argument(known, rows))

    def _finish_call(self, output: Any) -> None:
        call, self._current = self._current, None
        if call is None:
            return
        recording: Recording = call.recording.recording
        try:
            call.recording.end_step()
            recording.release()
        except Exception as error:
            recording.fail(error)
        if not recording.num_steps and not recording.failure:
            return  # the pipeline raised, or was asked for nothing
        pictures = None if call.given.get("output_type") == "latent" else output_pictures(output)
        self._generations.append(Generation(recording, recording.num_images, self._size(call, output), pictures=pictures))

    def _size(self, call: PipelineCall, output: Any) -> Size:
        """(height, width) in pixels of what the call made."""
        return output_size(output, call.given, self._pipe, call.recording.recording)

    def _begin_scheduler(self, scheduler: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        running = self._running()
        if running is None:
            return None
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)

        def finish(output: Any) -> None:
            try:
                running.end_step(timestep)
            except Exception as error:
                self._fail(error)

        return finish

    # -- its prompts ------------------------------------------------------------------------------------------------

    def _begin_encoding(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if pipe is not self._pipe or self._encoding:
            return None
        call = self._current
        if call is not None and call.recording.thread != threading.get_ident():
            return None
        signature = inspect.signature(type(pipe).encode_prompt)
        texts = _texts_of(signature, (pipe, *args), kwargs)
        record = self._tokenizers.record()
        tokens = record.__enter__()
        self._encoding = True

        def finish(output: Any) -> None:
            record.__exit__(None, None, None)
            try:
                self._on_encoding(Encoding(texts, _batches(output), tokens))
                if output is not None:
                    self._after_encoding(signature.bind(pipe, *args, **kwargs).arguments)
            except Exception as error:
                self._fail(error)
            finally:
                self._encoding = False

        return finish

    def _after_encoding(self, given: Mapping[str, Any]) -> None:
        """The pipeline's `encode_prompt` was called with these arguments; what is encoded here is not taken for its prompts."""

    def _on_encoding(self, encoding: Encoding) -> None:
        if not encoding.outputs:
            return
        self._earlier = [*self._earlier[1 - _EARLIER :], encoding]
        if self._current is not None:
            add_encoding(self._current.encoded, encoding, self._current.given, bool(self._current.recording.recording.groups))


def add_encoding(encoded: EncodedPrompts, encoding: Encoding, given: Mapping[str, Any], sampling: bool) -> None:
    """What one call of `encode_prompt` gave out, inside a call of the pipeline with the arguments `given`.

    Args:
        sampling: whether the model has run already: then a new prompt takes the place of the first from here on.
    """
    first, *more = encoding.outputs
    each = max(int(given.get(name) or 1) for name in ("num_images_per_prompt", "num_videos_per_prompt"))
    text = encoding.texts.get("prompt")
    part = encoded.num_parts("prompt")
    if "negative_prompt" in encoding.texts:
        if text is not None or not encoded.pass_through(first):
            encoded.add("prompt", first, encoding, "prompt", part, each)
        second = next((batch for batch in more if _alike(batch, first)), None)
        if second is not None and (encoding.texts["negative_prompt"] is not None or not encoded.pass_through(second)):
            encoded.add("negative", second, encoding, "negative_prompt", encoded.num_parts("negative"), each)
        return
    if text is None and encoded.pass_through(first):
        return
    prompts, negatives = _as_list(given.get("prompt")), _as_list(given.get("negative_prompt"))
    if text == prompts:
        is_negative = text == negatives and part > 0 and not sampling
    else:
        is_negative = text == negatives or (part > 0 and not sampling)
    side: Side = "negative" if is_negative else "prompt"
    encoded.add(side, first, encoding, "prompt", encoded.num_parts(side), each)


def _texts_of(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """The texts among the arguments of `encode_prompt`, copied: some pipelines write into the lists they are given.

    A text that was not given, nor its embeddings, is the empty one.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    given = bound.arguments
    texts: dict[str, list[str] | None] = {}
    for name in ("prompt", "negative_prompt"):
        if name in given:
            by_hand = given.get(f"{name}_embeds") is not None
            texts[name] = _as_list(given[name]) if given[name] is not None else None if by_hand else [""]
    for name, value in given.items():
        if re.fullmatch(r"(negative_)?prompt_\d", name) and _as_list(value) is not None:
            texts[name] = _as_list(value)
    return texts


def _as_list(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)) and value and all(isinstance(text, str) for text in value):
        return list(value)
    return None


def _batches(result: Any) -> list[list[Tensor]]:
    """The batches of rows `[columns, …]` among what `encode_prompt` gave out, in order."""
    values = result if isinstance(result, tuple) else (result,)
    return [rows for value in values if (rows := _rows(value))]


def _rows(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return list(value) if value.dim() >= 3 and value.is_floating_point() else []
    if isinstance(value, list) and value and all(isinstance(v, Tensor) and v.dim() >= 2 for v in value):
        return list(value)
    return []


def _alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether two batches can be the two sides of one encoder."""
    return len(one) == len(other) and one[0].shape[-1] == other[0].shape[-1] and one[0].dim() == other[0].dim()


def _same_rows(rows: Sequence[Tensor], batch: Sequence[Tensor]) -> bool:
    return len(rows) == len(batch) and all(
        a.shape == b.shape and torch.equal(a, b.to(a.device)) for a, b in zip(rows, batch, strict=True)
    )


def _argument(encoding: Encoding, rows: Sequence[Tensor]) -> str:
    """The argument whose text became these rows: the first batch is the prompt's, the next like it the negative's."""
    return "prompt" if _same_rows(rows, encoding.outputs[0]) or "negative_prompt" not in encoding.texts else "negative_prompt"
