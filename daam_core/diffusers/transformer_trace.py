"""Records a diffusers pipeline with a transformer while it paints, without touching the picture."""

from __future__ import annotations

from typing import Any

import torch

from ..capture.buffers import StoreOptions
from ..capture.families import family_of
from ..capture.model_recorder import ModelRecorder
from ..capture.transformer_hooks import TransformerHooks
from ..capture.transformer_recording import TransformerRecording
from ..errors import BadArgument, UnsupportedModel
from ..maps.heatmaps import Aggregation, HeatMaps
from .pipeline_trace import PipelineCall, PipelineTrace

MODELS = ("transformer", "transformer_2", "transformer_ref")
"""The names that pipelines know their transformers by."""
_NOT_READ = {"VisualCloze": "it paints several pictures at once, on one canvas"}


class TransformerTrace(PipelineTrace):
    """What `trace` gives for a pipeline with a transformer; it hears that pipeline, in the thread and time of its own call.

    Raises:
        UnsupportedModel: the transformer is none that is read.
    """

    def __init__(self, pipe: Any, keep: StoreOptions, negative: bool) -> None:
        super().__init__(pipe, keep, negative)
        name = type(pipe).__name__
        for start, reason in _NOT_READ.items():
            if name.startswith(start):
                raise UnsupportedModel(f"{name} cannot be read: {reason}.")
        models = [getattr(pipe, part, None) for part in MODELS]
        self._models = [model for model in models if isinstance(model, torch.nn.Module)]
        self._families = [family_of(model) for model in self._models]

    def heat_maps(self, image: int = 0, *, generation: int = -1, aggregation: Aggregation = "sum") -> HeatMaps:
        if aggregation != "sum":
            raise BadArgument(f"The aggregation {aggregation!r} is one of UNets; transformers have 'sum'.")
        return super().heat_maps(image, generation=generation)

    def _attach(self) -> None:
        super()._attach()
        for number, (model, family) in enumerate(zip(self._models, self._families, strict=True)):
            recorder = ModelRecorder(model, family, number, self._running, self._fail)
            self._stack.enter_context(TransformerHooks(model, recorder))

    def _record(self, call: PipelineCall) -> TransformerRecording:
        recording = TransformerRecording(lambda: call.encoded.rows, call.encoded.prompt, self._keep, self._sides)
        if call.given.get("padding_mask_crop") is not None:
            recording.fail(
                UnsupportedModel(
                    "With `padding_mask_crop` a transformer paints a cut around the mask alone, whose place in the maps is not "
                    "known: leave it out."
                )
            )
        return recording

    def _running(self) -> TransformerRecording | None:
        running = super()._running()
        return running if isinstance(running, TransformerRecording) else None


def text_encoders(pipe: Any) -> tuple[str, ...]:
    """The names of a pipeline's text encoders, where its transformer joins the columns of several; none of other pipelines.

    Raises:
        UnsupportedModel: the transformer is none that is read.
    """
    model = next((x for name in MODELS if isinstance(x := getattr(pipe, name, None), torch.nn.Module)), None)
    return () if model is None else family_of(model).encoders
