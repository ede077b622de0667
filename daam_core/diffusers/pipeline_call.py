"""One call of a pipeline: what it was given by name, and what is recorded of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..capture.given_latents import GivenLatents
from ..capture.recording import Recording
from ..types import Side
from .callbacks import Callbacks
from .encoded_prompts import EncodedPrompts, Encoding
from .encodings import argument_of, copied, rows_of, same_rows, source_of


class CallRecording(Protocol):
    """What is recorded of one call of a pipeline.

    Attributes:
        thread: the thread that makes the call.
        recording: groups, layers and steps.
        repeats: whether a step had more forwards of the model than were read.
        given_latents: of the step that runs.
    """

    thread: int
    recording: Recording
    repeats: bool
    given_latents: GivenLatents

    def end_step(self, timestep: Any = None) -> None:
        """A step is over, if anything of it was recorded."""

    def fail(self, error: Exception) -> None:
        """Stop recording; the pipeline goes on."""


class PipelineCall:
    """One call of the pipeline while it runs.

    Attributes:
        given: its arguments by name, as they were before it.
        encoded: what was encoded in it, and before it.
        callbacks: the user's own functions that it calls, in which models may run for something else than its picture.
        recording: what is recorded of it.
        stepped: whether a step of its scheduler was seen.
    """

    stepped = False

    def __init__(self, given: Mapping[str, Any], record: Callable[[PipelineCall], CallRecording]) -> None:
        self.given, self.encoded, self.callbacks = given, EncodedPrompts(), Callbacks(given)
        self.recording = record(self)


def call_arguments(pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a pipeline's call by name, defaults too; None where it does not take them."""
    try:
        bound = inspect.signature(type(pipe).__call__).bind(pipe, *args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    return dict(bound.arguments)


def add_given_embeddings(call: PipelineCall, earlier: Sequence[Encoding]) -> None:
    """Add the embeddings that come as arguments of a call to what was encoded; what they were made of, where that is one of
    the `earlier` encodings."""
    sides: tuple[tuple[Side, str], ...] = (("prompt", "prompt_embeds"), ("negative", "negative_prompt_embeds"))
    for side, name in sides:
        rows = copied(rows_of(call.given.get(name)))
        if rows:
            known = next((e for e in earlier if any(same_rows(rows, batch) for batch in e.outputs)), None)
            if known is None:
                call.encoded.add_rows(side, rows, [source_of(row, earlier) for row in rows])
            else:
                call.encoded.add(side, rows, known, argument_of(known, rows))
