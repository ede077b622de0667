"""Records a diffusers pipeline with a transformer while it paints, without touching the picture."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..attention.concepts import ConceptRule
from ..capture.buffers import StoreOptions
from ..capture.class_hook import Finish
from ..capture.compile_op import is_compiled, output_is_fused
from ..capture.concept_reader import ConceptReader, require_concepts
from ..capture.concept_texts import ConceptTexts
from ..capture.families import family_of
from ..capture.model_recorder import ModelRecorder
from ..capture.text_streams import TEXT_STREAMS
from ..capture.transformer_hooks import TransformerHooks
from ..capture.transformer_recording import TransformerRecording
from ..errors import BadArgument, NothingRecorded, UnsupportedModel, quoted
from ..maps.heatmaps import Aggregation, HeatMaps
from ..prompt.concepts import Concept
from .encoded_concepts import encode_transformer_concepts
from .pipeline_call import PipelineCall
from .pipeline_trace import PipelineTrace
from .token_prompts import TOKEN_MAKERS, TokenMaker

MODELS = ("transformer", "transformer_2", "transformer_ref")
"""The names that pipelines know their transformers by."""
_NOT_READ = {"VisualCloze": "it paints several pictures at once, on one canvas"}


class TransformerTrace(PipelineTrace):
    """What `trace` gives for a pipeline with a transformer; it hears that pipeline, in the thread and time of its own call.

    Args:
        concepts: what is looked for beside the prompt's words.
        concept_rule: which columns it is held against, see `attention.concepts`; of joint models "prompt" alone.

    Raises:
        UnsupportedModel: the transformer is none that is read, or none that concepts are read from.
        BadArgument: a joint model has not the rule.
    """

    def __init__(
        self,
        pipe: Any,
        keep: StoreOptions,
        negative: bool,
        concepts: tuple[Concept, ...] = (),
        concept_rule: ConceptRule = "prompt",
    ) -> None:
        super().__init__(pipe, keep, negative, concepts, concept_rule)
        name = type(pipe).__name__
        for start, reason in _NOT_READ.items():
            if name.startswith(start):
                raise UnsupportedModel(f"{name} cannot be read: {reason}.")
        self._models = _models_of(pipe)
        self._families = [family_of(model) for model in self._models]
        for model in self._models:
            if keep.output and is_compiled(model):
                raise output_is_fused(model)
        if concepts:
            self._require_concepts()

    def _require_concepts(self) -> None:
        for model, family in zip(self._models, self._families, strict=True):
            require_concepts(model, family)
        if not callable(getattr(type(self._pipe), "encode_prompt", None)):
            raise UnsupportedModel(
                f"{type(self._pipe).__name__} has no `encode_prompt`, so concepts cannot be encoded for it. Record it without "
                "them."
            )
        if self._concept_rule != "prompt" and self._families[0].name in TEXT_STREAMS:
            raise BadArgument(
                f"The rule {quoted(self._concept_rule)} is one of cross-attention; {self._families[0].name} has text and "
                "picture in one attention, where concepts are read by ConceptAttention's rule: leave `concept_rule` out."
            )

    def heat_maps(self, image: int = 0, *, generation: int = -1, aggregation: Aggregation = "sum") -> HeatMaps:
        if aggregation == "castorini":
            raise BadArgument(
                f"The aggregation {quoted(aggregation)} is one of UNets; transformers have 'sum', 'output' and 'anchor'."
            )
        return super().heat_maps(image, generation=generation, aggregation=aggregation)

    def _attach(self) -> None:
        super()._attach()
        for number, (model, family) in enumerate(zip(self._models, self._families, strict=True)):
            reader = ConceptReader(getattr(model, "_orig_mod", model), family) if self._concepts else None
            recorder = ModelRecorder(model, family, number, self._painting, self._fail, reader)
            self._stack.enter_context(TransformerHooks(model, recorder, self._keep.output or reader is not None))
            if reader is not None:
                self._stack.callback(reader.remove)
                reader.attach()

    def _attach_encoders(self) -> None:
        super()._attach_encoders()
        if not any(family.token_ids for family in self._families):
            return
        for maker in TOKEN_MAKERS:
            if (owner := maker.owner(self._pipe)) is not None:
                self._hook(type(owner), maker.method, functools.partial(self._begin_tokens, maker, owner))

    def _begin_tokens(
        self, maker: TokenMaker, owner: Any, called: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Finish | None:
        """The pipeline makes the tokens of its prompts, which its transformer is given."""
        if called is not owner or not self._may_encode():
            return None
        try:
            texts = maker.texts(maker.arguments(owner, args, kwargs))
        except Exception:
            return None  # the pipeline will say what is wrong with its prompts
        number = len(texts["prompt"] or ())
        return self._encode(lambda output, tokens: (texts, maker.rows(output, tokens, number)))

    def _record(self, call: PipelineCall) -> TransformerRecording:
        concepts = (lambda: self._encoded_concepts) if self._concepts else None
        recording = TransformerRecording(lambda: call.encoded.rows, call.encoded.prompt, self._keep, self._sides, concepts)
        if call.given.get("padding_mask_crop") is not None:
            recording.fail(
                UnsupportedModel(
                    "With `padding_mask_crop` a transformer paints a cut around the mask alone, whose place in the maps is not "
                    "known: leave it out."
                )
            )
        return recording

    def _begin_scheduler(self, scheduler: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        running = self._painting()
        if running is not None and self._exchanged():
            running.fail(_exchanged(self._pipe))
        return super()._begin_scheduler(scheduler, args, kwargs)

    def _finish_call(self, output: Any) -> None:
        call = self._current
        if call is not None and output is not None and not call.recording.recording.failure:
            if self._exchanged():
                call.recording.fail(_exchanged(self._pipe))
            elif not call.recording.recording.groups:
                call.recording.fail(
                    NothingRecorded(
                        f"{type(self._pipe).__name__} ran, but its transformer was not asked for a step that can be read: it "
                        "took none, or the model that painted is another"
                    )
                )
        super()._finish_call(output)

    def _exchanged(self) -> bool:
        """Whether the pipeline has other transformers than when the trace began."""
        return _models_of(self._pipe) != self._models

    def _nothing(self) -> str:
        if self._outside:
            name = type(self._pipe).__name__
            return (
                f"{self._outside} sampling steps ran inside the trace, but not in a call of {name} itself: of a pipeline with "
                "a transformer its own call is read, and neither a sampling loop of one's own nor "
                f"`{name}.__call__.__wrapped__`."
            )
        return super()._nothing()

    def _painting(self) -> TransformerRecording | None:
        running = super()._painting()
        return running if isinstance(running, TransformerRecording) else None

    def _encode_concepts(self, given: Mapping[str, Any]) -> ConceptTexts:
        return encode_transformer_concepts(
            self._pipe, given, self._concepts, self._concept_rule, self._tokenizers, self._families[0]
        )


def _models_of(pipe: Any) -> list[torch.nn.Module]:
    models = [getattr(pipe, part, None) for part in MODELS]
    return [model for model in models if isinstance(model, torch.nn.Module)]


def _exchanged(pipe: Any) -> NothingRecorded:
    return NothingRecorded(
        f"the transformer of {type(pipe).__name__} was exchanged for another inside the trace: begin a new `trace(pipe)` with "
        "that"
    )


def text_encoders(pipe: Any) -> tuple[str, ...]:
    """The names of a pipeline's text encoders, where its transformer joins the columns of several; none of other pipelines.

    Raises:
        UnsupportedModel: the transformer is none that is read.
    """
    model = next((x for name in MODELS if isinstance(x := getattr(pipe, name, None), torch.nn.Module)), None)
    return () if model is None else family_of(model).encoders
