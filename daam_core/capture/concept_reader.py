"""Reads concepts from one transformer while it runs: hooks on its blocks, and the recording that they feed."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import NothingRecorded, UnsupportedModel
from .attention_call import AttentionCall
from .compile_op import is_compiled
from .concept_streams import ConceptStreams
from .concept_texts import ConceptTexts
from .cross_concepts import TEXT_EMBEDDERS, CrossConcepts
from .family import Family
from .picture_text import PictureText
from .text_streams import TEXT_STREAMS
from .token_layout import RowLayout, TokenLayout
from .transformer_recording import TransformerRecording


class _Reader(Protocol):
    """What `ConceptStreams` and `CrossConcepts` have in common. What any of these raises ends the concepts, not the words."""

    def begin_call(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        layout: TokenLayout,
        rows: Sequence[tuple[int, PictureText]],
        like: Tensor,
    ) -> None:
        """The model is called: with these arguments, for these rows of its batch, with text like `like`."""

    def enter(self, name: str, module: nn.Module, given: Mapping[str, Any]) -> None:
        """A block, or an attention to the text, is called with these arguments by name."""

    def attention(self, layer: str, number: int, call: AttentionCall, rows: Sequence[RowLayout]) -> None:
        """A layer with text among its keys attended; `rows` for each row of the batch."""


def require_concepts(model: nn.Module, family: Family) -> None:
    """Raises UnsupportedModel, in a sentence, for a transformer that concepts are not read from."""
    known = [*TEXT_STREAMS, *TEXT_EMBEDDERS]
    if family.name not in known:
        raise UnsupportedModel(
            f"Concepts are read from UNets and from {', '.join(known)}; {family.name} is not one of them. Record it without "
            "concepts."
        )
    if is_compiled(model):
        raise UnsupportedModel(
            "Concepts are not read from a transformer compiled by `torch.compile`: what its attention gives out does not leave "
            "the graph. Record it uncompiled, or without concepts."
        )


def _detached() -> ConceptReader:
    reader = object.__new__(ConceptReader)
    reader._recording = None
    return reader


class ConceptReader:
    """Hooks on one transformer that concepts are read from; they read only while `begin` and `end` say so.

    Args:
        model: the transformer.
        family: what is known of it.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self._model, self._family = model, family
        self._stream = TEXT_STREAMS.get(family.name)
        names = [name for name, part in model.named_modules() if getattr(part, "processor", None) is not None]
        self._layers = [name for name in names if family.is_text_layer(name)]
        if self._stream is not None:
            self._layers = [name for name in self._layers if name.startswith(f"{self._stream.layers}.")]
        self._handles: list[RemovableHandle] = []
        self._signatures: dict[str, inspect.Signature] = {}
        self._recording: TransformerRecording | None = None
        self._thread = 0

    def attach(self) -> None:
        """Put the hooks in."""
        for layer in self._layers:
            name = layer if self._stream is None else layer.rpartition(".")[0]
            module = self._model.get_submodule(name)
            self._signatures[name] = inspect.signature(type(module).forward)
            hook = functools.partial(self._enter, name)
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def __reduce__(self) -> tuple[Any, ...]:
        """A model that is copied or written while it is recorded takes its hooks along: the copy's do nothing."""
        return _detached, ()

    def remove(self) -> None:
        """Take them out again."""
        while self._handles:
            self._handles.pop().remove()

    def begin(
        self,
        recording: TransformerRecording,
        given: Mapping[str, Any],
        layout: TokenLayout,
        texts: Sequence[PictureText | None],
        like: Tensor,
    ) -> None:
        """The model is called by the pipeline that is recorded; `texts` for each row of its batch."""
        self._recording = None
        rows = [(i, text) for i, text in enumerate(texts) if text is not None and text.group.side == "prompt"]
        if recording.concept_texts is None or recording.recording.concept_failure or not rows:
            return
        try:
            encoded = recording.concept_texts()
            if encoded is None:
                raise NothingRecorded("the pipeline did not encode its prompt inside the trace, so concepts were not either")
            if layout.patches[0] != 1 or layout.rows_apart or layout.frames_apart:
                raise UnsupportedModel("of videos they are not read")
            if recording.recording.concepts is None:
                recording.recording.concepts = self._made(encoded, like)
            reader = cast(_Reader, recording.recording.concepts)
            reader.begin_call(self._model, given, layout, rows, like)
        except Exception as error:
            recording.recording.fail_concepts(error)
            return
        self._recording, self._thread = recording, threading.get_ident()

    def _made(self, encoded: ConceptTexts, like: Tensor) -> ConceptStreams | CrossConcepts:
        if self._stream is not None:
            return ConceptStreams(encoded, self._stream, self._model, self._layers)
        return CrossConcepts(encoded, TEXT_EMBEDDERS[self._family.name], like)

    def end(self) -> None:
        """The model is done."""
        self._recording = None

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recording = self._recording
        if recording is None or self._thread != threading.get_ident() or recording.recording.concepts is None:
            return
        try:
            given = dict(self._signatures[name].bind(module, *args, **kwargs).arguments)
            for picture in ("hidden_states", "x"):  # not needed, and large
                given.pop(picture, None)
            with torch.no_grad():
                cast(_Reader, recording.recording.concepts).enter(name, module, given)
        except Exception as error:
            recording.recording.fail_concepts(error)

    def attention(self, layer: str, number: int, call: AttentionCall, rows: Sequence[RowLayout]) -> None:
        """A layer attended; `number` is its number in the recording."""
        recording = self._recording
        if recording is None or recording.recording.concepts is None:
            return
        try:
            with torch.no_grad():
                cast(_Reader, recording.recording.concepts).attention(layer, number, call, rows)
        except Exception as error:
            recording.recording.fail_concepts(error)
