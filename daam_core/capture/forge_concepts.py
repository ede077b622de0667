"""Reads concepts from one of Forge's transformers: its blocks are ComfyUI's, its attention is heard by another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..errors import UnsupportedModel
from .attention_call import AttentionCall
from .block_streams import Answered, BlockStreams
from .comfyui_concepts import ComfyUIConcepts
from .concept_texts import ConceptTexts
from .forge_streams import forge_concepts_refusal, forge_stream_of
from .recording import Recording
from .token_layout import RowLayout


class ForgeConcepts(ComfyUIConcepts):
    """The concepts of one batch of pictures. Whatever goes wrong ends them and not the words.

    Args:
        recording: gets the sums at the first call.
        model: the network.
        answered: makes its modules attend with another function, see `block_streams.Answered`.
    """

    def __init__(self, recording: Recording, model: nn.Module, answered: Answered) -> None:
        super().__init__(recording, model)
        self.recording, self._answered = recording, answered

    def reader(self, texts: ConceptTexts, context: Tensor) -> BlockStreams:
        kind = forge_stream_of(self._model)
        if kind is None:
            raise UnsupportedModel(forge_concepts_refusal(self._model))
        return BlockStreams(texts, kind, self._model, self._answered)

    def attention_made(self, number: int, made: Callable[[], AttentionCall], rows: Sequence[RowLayout]) -> None:
        """A layer with text among its keys attended; `made` gives the call with its values and what it gave out."""
        self._ask(lambda reader: reader.attention(number, made(), rows))
