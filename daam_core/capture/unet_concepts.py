"""Concepts that are read beside the prompt's words while a UNet paints; whatever goes wrong ends them, not the words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..errors import NothingRecorded, UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .buffers import BatchSlice
from .concept_texts import ConceptTexts
from .concepts import ConceptRecording
from .recording import Recording
from .unet_hooks import UNetAttentionHooks


class UNetConcepts:
    """The concepts of one call of a pipeline.

    Args:
        recording: what they are part of.
        hooks: on the UNet, which makes their keys.
        texts: gives the concepts, encoded; None where that could not be done.
    """

    def __init__(self, recording: Recording, hooks: UNetAttentionHooks, texts: Callable[[], ConceptTexts | None]) -> None:
        self._recording, self._hooks, self._texts = recording, hooks, texts
        self._sums: ConceptRecording | None = None
        self._proved: set[int] = set()

    def start(self, prompts: Sequence[Prompt], context: Tensor, video: bool) -> None:
        """The prompts of the pictures come in; `context` is the text that the UNet is given."""
        recording = self._recording
        if recording.concept_failure:
            return
        try:
            texts = self._texts()
            if video:
                raise UnsupportedModel("of videos they are not read")
            if texts is None:
                raise NothingRecorded("the pipeline did not encode its prompt inside the trace, so concepts were not either")
            if recording.concepts is None:
                hooks = self._hooks
                self._sums = ConceptRecording(texts, prompts, hooks.text_keys, hooks.key_weights, context, not hooks.compiled)
                recording.concepts = self._sums
            elif self._sums is not None:
                self._sums.hold_against(prompts)
        except Exception as error:
            recording.fail_concepts(error)

    def add(
        self,
        described: Layer,
        layer: int,
        grid: Grid,
        q: Tensor,
        k: Tensor,
        context: Tensor,
        places: Sequence[BatchSlice],
        keys: object | None,
    ) -> None:
        """A layer's attention to them; `places` are the rows of the prompt's side, `keys` as for `ConceptRecording.add`."""
        sums = self._sums
        if sums is None or self._recording.concepts is not sums:
            return
        try:
            for where in places:
                if layer not in self._proved:
                    self._proved.add(layer)
                    sums.require_own_keys(described, layer, context[where.start], k[where.start])
                sums.add(layer, grid, q, k, described.heads, described.scale, where, keys)
        except Exception as error:
            self._recording.fail_concepts(error)
