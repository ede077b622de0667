"""Records a diffusers pipeline with a UNet while it paints, without touching the picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..attention.concepts import ConceptRule
from ..capture.buffers import StoreOptions
from ..capture.class_hook import Finish
from ..capture.compile_op import output_is_fused
from ..capture.concept_texts import ConceptTexts
from ..capture.region import WHOLE
from ..capture.text_rows import EncodedText
from ..capture.tokenizer_hook import Tokenized
from ..capture.unet_hooks import UNetAttentionHooks
from ..capture.unet_outputs import UNetOutputs
from ..capture.unet_recording import UNetRecording
from ..capture.view_recording import ViewRecording, views_of
from ..errors import BadArgument, NothingRecorded, UnsupportedModel
from ..maps.heatmaps import Aggregation, HeatMaps
from ..prompt.concepts import Concept
from ..prompt.prompt import Prompt
from ..types import Size
from .encoded_concepts import encode_concepts, require_concepts
from .encoded_prompts import Encoding, Source
from .encoder_rows import ENCODERS, add_encoder_output
from .outputs import output_pictures, output_size
from .painted_area import painted_area
from .pipeline_call import PipelineCall
from .pipeline_trace import PipelineTrace
from .unet_pictures import pixels, require_own_texts, require_readable, require_whole, shape_of, unet_of
from .unet_prompts import encoded_words, given_text, given_words


class UNetTrace(PipelineTrace):
    """The trace of a pipeline with a cross-attention UNet.

    Args:
        prompts: the texts of embeddings that somebody else made, one for each picture or one for all.
        concepts: what is looked for beside the prompt's words.
        concept_rule: which columns it is held against, see `attention.concepts`.

    Raises:
        UnsupportedModel: the pipeline has no UNet with cross-attention, or none that is given text.
    """

    _reads_encoders = True
    """Whether the text encoders themselves are read, where the pipeline has no method that encodes its prompts."""

    def __init__(
        self,
        pipe: Any,
        keep: StoreOptions,
        negative: bool,
        prompts: Sequence[str] | None = None,
        concepts: tuple[Concept, ...] = (),
        concept_rule: ConceptRule = "prompt",
    ) -> None:
        super().__init__(pipe, keep, negative, concepts, concept_rule)
        require_readable(pipe)
        if concepts:
            if unet_of(pipe) is not getattr(pipe, "unet", None):
                raise UnsupportedModel(f"Concepts are not read from {type(unet_of(pipe)).__name__}: record it without them.")
            require_concepts(pipe)
        self._prompts = prompts
        self._hooks = UNetAttentionHooks(unet_of(pipe), self_attention=keep.self_attention)
        if keep.output and self._hooks.compiled:
            raise output_is_fused(self._hooks.unet)
        self._words: dict[tuple[Any, ...], Prompt] = {}
        self._during = ExitStack()
        self._tokens: Sequence[Tokenized] = ()
        self._calls = 0
        self._loop: PipelineCall | None = None
        self._masking = False

    @property
    def _unet(self) -> Any:
        return unet_of(self._pipe)

    def _attach(self) -> None:
        super()._attach()
        self._stack.callback(self._detach, True)
        self._hook(type(self._pipe), "get_views", self._begin_views)
        self._hook(type(self._pipe), "generate_mask", self._begin_mask)
        if self._reads_encoders and not hasattr(type(self._pipe), "encode_prompt"):
            for encoder in filter(None, (getattr(self._pipe, name, None) for name in ENCODERS)):
                self._hook(type(encoder), "forward", self._begin_encoder)
        if self._hooks.compiled:  # hooks are part of its graphs: they come and go with the trace, not with each call
            self._hooks.__enter__()

    def _detach(self, for_good: bool = False) -> None:
        self._hooks.receiver = None
        self._during.close()
        if for_good or not self._hooks.compiled:
            self._hooks.__exit__()

    def _castorini_side(self) -> int:
        # That package knows two latent sizes: 64 where the model's own picture is 512 or 1024 px, else 96.
        if not hasattr(self._unet.config, "sample_size"):
            raise BadArgument(f"The aggregation 'castorini' is none of {type(self._unet).__name__}.")
        side = int(self._unet.config.sample_size) * int(self._pipe.vae_scale_factor)
        return 64 if side in (512, 1024) else 96

    # -- a sampling loop of one's own -------------------------------------------------------------------------------

    def __exit__(self, *_: object) -> None:
        self._end_loop()
        super().__exit__()

    def heat_maps(self, image: int = 0, *, generation: int = -1, aggregation: Aggregation = "sum") -> HeatMaps:
        self._end_loop()
        return super().heat_maps(image, generation=generation, aggregation=aggregation)

    def _begin(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        if pipe is self._pipe:
            self._end_loop()
        return super()._begin(pipe, args, kwargs)

    def _on_encoding(self, encoding: Encoding) -> None:
        """A prompt that is encoded outside a call may be for a sampling loop of one's own: the UNet is listened to from then
        on, until the pipeline is called, another prompt is encoded after steps were taken, or maps are asked for."""
        if self._masking:
            return
        if self._loop is not None and self._loop.recording.recording.groups:
            self._end_loop()
        if self._current is None and encoding.outputs:
            self._current = self._loop = PipelineCall({}, self._record)
        super()._on_encoding(encoding)

    def _begin_mask(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        """DiffEdit's mask is what two prompts make of a picture, side by side in one batch: no picture is painted there."""
        if pipe is not self._pipe or self._current is not self._loop:
            return None
        self._end_loop()
        self._masking = True

        def finish(_: Any) -> None:
            self._masking = False

        return finish

    def _end_loop(self) -> None:
        if self._loop is not None and self._current is self._loop:
            self._finish_call(None)
        self._loop = None

    # -- the pipeline's call ----------------------------------------------------------------------------------------

    def _record(self, call: PipelineCall) -> UNetRecording:
        failure: Exception | None = None
        area = WHOLE
        try:
            if self._unet is not self._hooks.unet:
                self._detach(True)
                self._hooks = UNetAttentionHooks(self._unet, self_attention=self._keep.self_attention)
                if self._hooks.compiled:
                    self._hooks.__enter__()
            require_own_texts(self._pipe)
            area = painted_area(self._pipe, call.given)
            if self._keep.heads and not area.whole:
                raise BadArgument("Heads are kept apart of whole pictures, not of the part that `padding_mask_crop` paints.")
        except Exception as error:
            failure = error
        self._words.clear()
        self._tokens = self._during.enter_context(self._tokenizers.record())
        recording = ViewRecording(
            self._hooks,
            lambda: call.encoded.rows,
            lambda text: self._prompt(call, text),
            self._keep,
            self._sides,
            area,
            bool(call.given),
            (lambda: self._encoded_concepts) if self._concepts else None,
            self._during.enter_context(UNetOutputs(self._unet)) if self._keep.output else None,
            call.callbacks.running,
        )
        if self._keep.output and self._hooks.compiled:  # it was exchanged for one that is
            recording.recording.fail_outputs(output_is_fused(self._unet))
        if failure is not None:
            recording.fail(failure)
        else:
            self._hooks.receiver = recording
            if not self._hooks.compiled:
                self._hooks.__enter__()
        return recording

    def _begin_views(self, pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        """A pipeline cuts its picture into windows, each of which its UNet is shown by itself."""
        call, running = self._current, self._running()
        if pipe is not self._pipe or call is None or not isinstance(running, ViewRecording):
            return None
        given = inspect.signature(type(pipe).get_views).bind(pipe, *args, **kwargs).arguments
        if not {"panorama_height", "panorama_width"} <= set(given):
            return None  # a method of that name which cuts in a way that is not known: `require_whole` says so

        def finish(windows: Any) -> None:
            try:
                factor = int(pipe.vae_scale_factor)
                total = int(given["panorama_height"]) // factor, int(given["panorama_width"]) // factor
                running.begin_views(views_of(windows, total), int(call.given.get("view_batch_size") or 1))
            except Exception as error:
                self._fail(error)

        return finish

    def _finish_call(self, output: Any) -> None:
        call = self._current
        self._detach()
        self._calls += call is not self._loop
        if call is not None and output is not None and not call.recording.recording.failure:
            recording = call.recording
            assert isinstance(recording, UNetRecording)
            try:
                recording.end_step()
                require_whole(self._pipe, recording, output)
            except Exception as error:
                recording.fail(error)
        super()._finish_call(output)

    def _size(self, call: PipelineCall, output: Any) -> Size:
        recording = call.recording
        assert isinstance(recording, UNetRecording)
        if self._unet is not getattr(self._pipe, "unet", None):  # a prior, whose latents are no picture's
            if not call.given:  # a loop of one's own, which was told no size
                side = float(self._pipe.config.resolution_multiple)
                return round(side * recording.latent_size[0]), round(side * recording.latent_size[1])
            return int(call.given["height"]), int(call.given["width"])
        painted = pixels(recording.latent_size, self._pipe)
        pictures = output_pictures(output)
        if pictures is None or not len(pictures) or shape_of(pictures) == recording.latent_size:
            return painted
        return output_size(output, call.given, self._pipe, recording.recording)

    def _begin_scheduler(self, scheduler: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        running = self._painting()
        if running is not None and self._unet is not self._hooks.unet:
            running.fail(NothingRecorded("`pipe.unet` was exchanged for another model while the pipeline ran"))
        return super()._begin_scheduler(scheduler, args, kwargs)

    def _nothing(self) -> str:
        name = type(self._pipe).__name__
        if self._outside:
            return (
                f"{self._outside} sampling steps ran inside the trace, but not in a call of {name}: a sampling loop of one's "
                "own is read where its prompt is encoded inside the trace, too, by `pipe.encode_prompt`."
            )
        if self._calls:
            return f"{name} was called inside the trace, but it ended before its first step."
        return super()._nothing()

    def _begin_encoder(self, encoder: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Finish | None:
        call, running = self._current, self._running()
        if call is None or running is None or not any(encoder is getattr(self._pipe, name, None) for name in ENCODERS):
            return None
        ids = args[0] if args else kwargs.get("input_ids")

        def finish(output: Any) -> None:
            try:
                if output is not None:
                    add_encoder_output(call.encoded, ids, output, self._tokens, call.given)
            except Exception as error:
                self._fail(error)

        return finish

    # -- words ------------------------------------------------------------------------------------------------------

    def _encode_concepts(self, given: Mapping[str, Any]) -> ConceptTexts:
        return encode_concepts(self._pipe, given, self._concepts, self._concept_rule, self._tokenizers)

    def _prompt(self, call: PipelineCall, text: EncodedText) -> Prompt:
        columns = int(text.rows.shape[-2])
        source: Source | None = call.encoded.source(text)
        if source is None:
            if self._prompts is None or text.side == "negative":
                return Prompt.by_index(columns)
            rows = [own.rows for own in call.encoded.rows if (own.side, own.part) == (text.side, text.part)]
            return given_words(self._pipe, given_text(self._prompts, rows, text.image), columns)
        key = (id(source[0]), source[1], source[2], columns)
        if key not in self._words:
            self._words[key] = encoded_words(self._pipe, source, columns)
        return self._words[key]
