"""Reads concepts from one of ComfyUI's transformers while it runs: hooks on its blocks, taken off when the sampler is done."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .attention_call import AttentionCall
from .block_streams import BlockStreams, ConceptRow
from .comfyui_cross_concepts import CROSS_TEXTS, ComfyUICrossConcepts, cross_text_of
from .comfyui_families import COMFYUI_FAMILIES
from .comfyui_streams import BLOCK_STREAMS, block_stream_of
from .concept_texts import ConceptTexts
from .recording import Recording
from .token_layout import RowLayout, TokenLayout

CONCEPT_FAMILIES = tuple(
    name for name, known in COMFYUI_FAMILIES.items() if any(one in (*BLOCK_STREAMS, *CROSS_TEXTS) for one in known.classes)
)
"""Families whose transformers concepts are read from in ComfyUI, beside UNets."""


def concepts_refusal(model: nn.Module) -> str:
    """Why concepts are not read from a transformer that ComfyUI built; empty where they are."""
    if block_stream_of(model) or cross_text_of(model):
        return ""
    return (
        f"of this model, {type(model).__name__}, they are not read in ComfyUI; they are of Stable Diffusion's UNets and of "
        f"{', '.join(CONCEPT_FAMILIES)}"
    )


def needs_whole_texts(model: nn.Module) -> bool:
    """Whether the embedding of a text depends on all its columns, see `BlockStream`."""
    kind = block_stream_of(model)
    return kind is not None and kind.whole


class ComfyUIConcepts:
    """The concepts of one run of a transformer. Whatever goes wrong ends them and not the words.

    Args:
        recording: gets the sums at the first call.
        model: the network.
    """

    def __init__(self, recording: Recording, model: nn.Module) -> None:
        self._recording, self._model = recording, model
        self._reader: BlockStreams | ComfyUICrossConcepts | None = None
        self._handles: list[Any] = []
        self._thread = threading.get_ident()
        self._active = False

    def begin(
        self,
        texts: Callable[[], ConceptTexts],
        rows: Sequence[ConceptRow],
        layout: TokenLayout,
        latent: Sequence[int],
        context: Tensor | None,
    ) -> None:
        """The model is called, see `BlockStreams.begin_call`; `texts` gives the concepts, encoded, or raises."""
        self._active = False
        if self._recording.concept_failure or not rows:
            return
        try:
            if context is None:
                raise UnsupportedModel("the model was given no text")
            if self._reader is None:
                self._reader = self._recording.concepts = self.reader(texts(), context)
            if not self._handles:
                self._attach(self._reader)
            self._reader.begin_call(rows, layout, latent, context)
        except Exception as error:
            self._fail(error)
            return
        self._active = True

    def reader(self, texts: ConceptTexts, context: Tensor) -> BlockStreams | ComfyUICrossConcepts:
        """What reads these concepts from the network.

        Raises:
            UnsupportedModel: nobody does.
        """
        if (kind := block_stream_of(self._model)) is not None:
            return BlockStreams(texts, kind, self._model)
        if (text := cross_text_of(self._model)) is not None:
            return ComfyUICrossConcepts(texts, text, self._model, context)
        raise UnsupportedModel(concepts_refusal(self._model))

    def _attach(self, reader: BlockStreams | ComfyUICrossConcepts) -> None:
        for number, name in enumerate(reader.blocks):
            module = self._model.get_submodule(name)
            enter, leave = functools.partial(self._enter, number), self._leave
            self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(leave, with_kwargs=True))

    def attention(self, number: int, a: AttentionCall, rows: Sequence[RowLayout]) -> None:
        """A layer with text among its keys attended; `number` is its number in the recording."""
        self._ask(lambda reader: reader.attention(number, a, rows))

    def end(self) -> None:
        """The call of the model is over."""
        self._ask(lambda reader: reader.end_call())
        self._active = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While a sampler runs; takes every hook off at its end."""
        try:
            yield
        finally:
            self.clear()

    def clear(self) -> None:
        """Take the hooks off, and let go of the model."""
        self._reader = None
        self.detach()

    def detach(self) -> None:
        """Take the hooks off until the model is called again."""
        self._active = False
        while self._handles:
            self._handles.pop().remove()

    def _enter(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._ask(lambda reader: reader.enter(number, module, args, kwargs))

    def _leave(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        self._ask(lambda reader: reader.leave(output))

    def _ask(self, call: Callable[[BlockStreams | ComfyUICrossConcepts], None]) -> None:
        if not self._active or self._reader is None or self._thread != threading.get_ident():
            return
        try:
            with torch.no_grad():
                call(self._reader)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._active = False
        self._recording.fail_concepts(error)
