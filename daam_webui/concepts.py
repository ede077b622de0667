"""Concepts of one run: words that are looked for although the prompt does not hold them.

The host's own text encoder reads them once, before the prompt; each layer's keys of them are made beside the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from daam_core.capture.buffers import BatchSlice
from daam_core.capture.concept_texts import ConceptTexts, texts_to_encode
from daam_core.capture.concepts import ConceptRecording
from daam_core.capture.forge_streams import forge_concepts_refusal, forge_stream_of
from daam_core.capture.recording import Recording
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.errors import NothingRecorded, UnsupportedModel, quoted
from daam_core.prompt.concepts import Concept
from daam_core.prompt.prompt import Prompt
from daam_core.types import Grid, Layer

from . import engine_words
from .hosts import WebUI
from .tokenization import engine_of, read

JOINED = (
    "parts of a prompt that are joined by AND are sampled apart, and nobody can say which of them a concept is held against; "
    "write the prompt without AND"
)
OTHER_MODEL = (
    "a second checkpoint took part (a refiner, or a checkpoint of hires fix), and the concepts were read by the text encoder "
    "of the first"
)


def encode(host: WebUI, model: Any, concepts: tuple[Concept, ...]) -> ConceptTexts:
    """Concepts and what they are held against, through the host's text encoder, in one call.

    Args:
        host: the WebUI.
        model: its loaded checkpoint.

    Raises:
        UnsupportedModel: the checkpoint gives out other states than one row of columns a text.
        BadArgument: a concept that the encoder reads nothing of.
    """
    engine = engine_of(model)
    labels, texts = texts_to_encode(concepts)
    # An encoder in training mode draws random numbers, which are the picture's.
    weight = next(host.unet(model).parameters())
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        states = host.encode_texts(model, texts)
    prompts = tuple(read(engine, text, host.chunks(engine, text)) for text in texts)
    if states.dim() != 3 or len(states) != len(texts) or states.shape[1] < max(prompt.length for prompt in prompts):
        raise UnsupportedModel(
            f"this checkpoint's text encoder gives out {list(states.shape)} for {len(texts)} concepts, which cannot be read"
        )
    found = ConceptTexts(concepts, tuple(labels), prompts, states)
    found.columns()  # a concept without a token is told now
    return found


def encode_for_transformer(host: WebUI, model: Any, engine: str, concepts: tuple[Concept, ...]) -> ConceptTexts:
    """The same for a transformer, text by text, since each is told its template and has columns of its own number.

    Args:
        engine: the attribute of the checkpoint that is its text encoder.

    Raises:
        UnsupportedModel: the encoder gives out other columns than it reads, or the model is not one that concepts are read of.
        BadArgument: a concept that the encoder reads nothing of.
    """
    network = host.unet(model)
    if refusal := forge_concepts_refusal(network):
        raise UnsupportedModel(refusal)
    labels, texts = texts_to_encode(concepts)
    weight = next(network.parameters())
    with torch.no_grad(), torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []):
        each = [host.encode_alone(model, engine, text) for text in texts]
    prompts = tuple(
        engine_words.read(getattr(model, engine), text, False, int(states.shape[-1]))
        for text, states in zip(texts, each, strict=True)
    )
    for states, prompt in zip(each, prompts, strict=True):
        if states.dim() != 2 or len(states) != prompt.length:
            raise UnsupportedModel(
                f"this checkpoint's text encoder gives out {list(states.shape)} for the concept {quoted(prompt.text, 60)}, "
                f"which takes {prompt.length} columns"
            )
    found = ConceptTexts(concepts, tuple(labels), prompts, each[0])
    last = 1 + max(column for _, column in found.columns())  # a concept without a token is told now
    kind = forge_stream_of(network)
    if kind is not None and kind.whole:
        last = max(map(len, each))
    # T5 pads every text to hundreds of columns, which nobody reads.
    return replace(found, states=torch.stack([pad(x[:last], (0, 0, 0, max(0, last - len(x)))) for x in each]))


@dataclass(frozen=True)
class _Call:
    """One call of the UNet: the text of each row, the hooks that read it."""

    context: Tensor
    hooks: UNetAttentionHooks


class BatchConcepts:
    """The concepts of the pictures of one batch. Whatever goes wrong ends them, not the words' maps.

    Args:
        recording: of the batch.
        texts: the concepts, encoded; or why they are not.
        parts: how many AND parts each picture's prompt has.
    """

    def __init__(self, recording: Recording, texts: ConceptTexts | Exception, parts: Sequence[int]) -> None:
        self._recording, self._texts = recording, texts
        self._call: _Call | None = None
        self._unet: Any = None
        self._layers: dict[int, int] = {}
        self._own: ConceptRecording | None = None
        self._proved: set[int] = set()
        if isinstance(texts, Exception):
            recording.fail_concepts(texts)
        elif max(parts) > 1:
            recording.fail_concepts(UnsupportedModel(JOINED))

    @property
    def texts(self) -> ConceptTexts:
        """The concepts, encoded.

        Raises:
            Exception: why they are not.
        """
        if isinstance(self._texts, Exception):
            raise self._texts
        return self._texts

    def begin_call(self, prompts: Sequence[Prompt], context: Tensor | None, hooks: UNetAttentionHooks) -> None:
        """The UNet is called with the rows of these pictures' prompts.

        Args:
            prompts: what each picture is told now: its words, at their columns in that text.
            context: `[rows, columns, width]`.
            hooks: on the UNet.
        """
        self._call = None
        if self._recording.concept_failure or isinstance(self._texts, Exception):
            return
        try:
            if context is None:
                raise NothingRecorded("the text that the model is given is not known")
            self._unet = self._unet or hooks.unet
            if hooks.unet is not self._unet:
                raise UnsupportedModel(OTHER_MODEL)
            if self._own is None:
                self._own = ConceptRecording(self._texts, prompts, self._keys, _unknown, context)
                self._recording.concepts = self._own
            for image, prompt in enumerate(prompts):
                self._own.hold_one_against(image, prompt)
            self._call = _Call(context, hooks)
        except Exception as error:
            self._recording.fail_concepts(error)

    def end_call(self) -> None:
        self._call = None

    def add(self, number: int, index: int, layer: Layer, grid: Grid, q: Tensor, k: Tensor, where: BatchSlice) -> None:
        """One cross-attention layer.

        Args:
            number: of the layer in the recording.
            index: of the layer in the hooks, which may leave out self-attention.
        """
        concepts, call = self._own, self._call
        if concepts is None or call is None or self._recording.concepts is None:
            return
        try:
            self._layers[number] = index
            if number not in self._proved:
                self._proved.add(number)
                concepts.require_own_keys(layer, number, call.context[where.start], k[where.start])
            concepts.add(number, grid, q, k, layer.heads, layer.scale, where)
        except Exception as error:
            self._recording.fail_concepts(error)

    def hold_against(self, prompts: Sequence[Prompt]) -> None:
        """What each picture was told in all: a concept that any of it holds is a word."""
        if self._own is not None and self._recording.concepts is not None:
            try:
                self._own.hold_against(prompts)
            except Exception as error:
                self._recording.fail_concepts(error)

    def _keys(self, number: int, states: Tensor) -> Tensor:
        assert self._call is not None  # a layer has just attended
        return self._call.hooks.text_keys(self._layers[number], states)


def _unknown(_number: int) -> None:
    """What a layer's keys depend on: a WebUI's LoRAs may stand in the place of the function of all linear layers, so the few
    keys are made anew at each step."""
