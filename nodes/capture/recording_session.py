"""One run of a sampler: its steps, calls of the model and attention, recorded by the core's `Recording`.

`sampler_listeners` brings the calls, `model_calls` says what they are. Nothing here raises into the sampler: the first error
ends the recording and becomes the sentence that the map nodes show.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor

from ...daam_core.capture.attention_call import from_comfyui
from ...daam_core.capture.comfyui_concepts import ComfyUIConcepts, concepts_refusal
from ...daam_core.capture.comfyui_model import ComfyUIModel
from ...daam_core.capture.heat_so_far import heat_so_far, words_are_known
from ...daam_core.capture.lse_capture import LseCapture
from ...daam_core.capture.recording import Recording
from ...daam_core.capture.token_layout import TokenLayout
from ...daam_core.capture.unrecorded_blocks import UnrecordedBlocks
from ...daam_core.errors import BadPrompt, NothingRecorded, UnsupportedModel, WordNotFound
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.types import Size
from .attention_router import AttentionRouter, grid_of_block, with_output
from .concept_router import ConceptRouter, concept_rows, one_encoding
from .foreign_override import ForeignOverride, layer_of
from .layer_text import LayerText
from .missing_maps import (
    CHANGED_ENCODING,
    left_out_layers,
    no_relations,
    nothing_recorded,
    several_passes,
    unreported_attention,
)
from .model_call import Call
from .model_calls import ModelCalls
from .record_options import Options


class RecordingSession:
    """Records one run.

    Args:
        options: what to keep.
        guider: ComfyUI's guider; its prepared conditionings are read when the first step begins.
        latent: shape `[images, c, …, h, w]` of the noise.
        model: the diffusion model.
        family: the transformer's family, None for a UNet.
        scale: pixels of the picture for each latent position.

    Attributes:
        next_call: what the next attention call is, None where it is not recorded: what ComfyUI tells a UNet's block of
            itself, and whether it is the picture's attention to itself. A transformer says nothing about its calls.
        layer_text: the proof that a UNet's layers attend to the model's text.
        override: another pack's attention override, through which this run's attention goes; None where there is none.
    """

    def __init__(
        self, options: Options, guider: Any, latent: Sequence[int], model: Any, family: ComfyUIModel | None, scale: int
    ) -> None:
        self.options, self.family = options, family
        self.next_call: tuple[Mapping[str, Any], bool] | None = None
        self.sampling_step = 0
        self.layer_text = LayerText()
        self.override: ForeignOverride | None = None
        self._recording = Recording(options.keep)
        self._model = model
        self._latent, self._scale = tuple(int(n) for n in latent), scale
        self._calls = ModelCalls(guider, self._latent, model, family, options.negative)
        concepts = ConceptRouter(self._recording, model, self._latent[0]) if options.concepts and family is None else None
        self._block_concepts: ComfyUIConcepts | None = None
        if options.concepts and family is not None:
            if reason := concepts_refusal(model):
                self._recording.fail_concepts(UnsupportedModel(reason))
            else:
                self._block_concepts = ComfyUIConcepts(self._recording, model)
        self._router = AttentionRouter(self._recording, self._latent[0], family is not None, concepts, self._block_concepts)
        self._blocks: UnrecordedBlocks | None = None
        self._call: Call | None = None
        self._records_self = False
        self._step: Tensor | None = None  # noise level of the step that is open
        self._opened_by_batch = False
        self._missing, self._predicted = "", False
        self._passes = 0
        self._attending = 0
        self._layers: list[int] = []  # of each recorded call of the model, how many attended to the text
        self._thread = threading.get_ident()

    @property
    def failure(self) -> str:
        """Why recording stopped, empty while it goes on."""
        return self._recording.failure

    @property
    def note(self) -> str:
        """What is missing although there are maps, empty where nothing is."""
        recording, conds = self._recording, self._calls.conds
        changed = conds is not None and ("prompt" in conds.changed or (self.options.negative and bool(conds.changed)))
        of_run = several_passes(self._passes), left_out_layers(self._layers), CHANGED_ENCODING if changed else ""
        told = recording.concept_failure, recording.output_failure, self._missing, *of_run
        return " ".join(filter(None, told))

    @property
    def latent_size(self) -> Size:
        return self._latent[-2], self._latent[-1]

    # -- the sampler ------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return not self.failure and self.options.first_step <= self.sampling_step <= self.options.last_step

    def begin_pass(self) -> None:
        """The sampler begins, from its first noise level on."""
        self._close_step()
        self._passes, self.sampling_step = self._passes + 1, 0

    def begin_step(self, sigma: Tensor) -> None:
        """The sampler wants a prediction."""
        self._close_step()
        self._calls.begin_step()
        self._predicted = True
        self._step, self._opened_by_batch = sigma, False

    def end_step(self) -> None:
        self._close_step()

    def _close_step(self) -> None:
        if self._step is not None and self.live:
            self._recording.end_step(self._step)
        self._step = None

    def begin_batch(self, lists: Sequence[Any], x: Tensor, timestep: Tensor) -> None:
        """The conditionings that are predicted next for the latent `x`, see `ModelCalls.begin_batch`.

        Some guiders ask for predictions without saying that a step begins: it begins here then, with each noise level.
        """
        if self._step is None or (self._opened_by_batch and self._step is not timestep):
            self.begin_step(timestep)
            self._opened_by_batch = True
        self._calls.begin_batch(lists, x, timestep)

    def end_batch(self) -> None:
        self._calls.end_batch()

    def begin_model(self, x: Tensor, context: Tensor | None, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """The diffusion model is called with `x` `[channels, c, …, h, w]`; `given` is everything else that it gets."""
        self._drop_call()
        if not self.live or self._step is None or not self._calls.are_known(options):
            return
        if threading.get_ident() != self._thread:
            raise NothingRecorded("the model runs on several devices at once, which is not recorded. Sample on one of them")
        call = self._call = self._calls.call(x, context, options, given)
        if call is None:
            return
        self._records_self = call.own is not None and self._recording.keeps_self_attention
        if call.layout is not None:
            self.next_call = {}, False
            if self._blocks is not None and call.counted is not None:
                self._blocks.begin(call.counted)
            self._begin_concepts(call, call.layout, x)

    def _begin_concepts(self, call: Call, layout: TokenLayout, x: Tensor) -> None:
        concepts, conds = self._block_concepts, self._calls.conds
        if concepts is not None and conds is not None:
            rows = concept_rows(call.wanted, conds.prompts["prompt"])
            concepts.begin(lambda: one_encoding(conds.concepts), rows, layout, tuple(x.shape), call.context)

    def begin_network(self) -> None:
        """The network itself begins, inside other nodes' wrappers around it."""
        if self._call is not None:
            self._call.enter(type(self._model).__name__)

    def end_model(self) -> None:
        """The call of the diffusion model is over."""
        call = self._call
        if call is not None and call.layout is None:
            self._check_seen()
        self._drop_call()
        if call is not None and not self.failure:
            if self._block_concepts is not None:
                self._block_concepts.end()
            self._router.finish_call(call)
            self._layers.append(call.layers)

    def _drop_call(self) -> None:
        self._call = self.next_call = None
        if self._blocks is not None:
            self._blocks.end()

    # -- attention --------------------------------------------------------------------------------------------------

    def set_next_call(self, block: Mapping[str, Any], own: bool, context: Any = None) -> None:
        """A UNet's transformer block says that its next attention call is cross-attention (or the picture's own)."""
        call = self._call
        try:
            self._check_seen()
            self.next_call = None
            if call is None or (own and not (self._records_self and self._recording.wants_self(grid_of_block(block)))):
                return
            if not own:
                self.layer_text.check(call, context)
                call.layers += 1
            self.next_call = block, own
        except Exception as error:
            self.fail(error)

    def _check_seen(self) -> None:
        """Raises NothingRecorded: the cross-attention that was announced last came by a way on which nobody sees it."""
        if self.next_call is not None and not self.next_call[1]:
            raise NothingRecorded(unreported_attention(self.next_call[0]))

    @property
    def reads_output(self) -> bool:
        """Whether what the attention gives out is read, too."""
        recording = self._recording
        concepts = self._block_concepts is not None and not recording.concept_failure
        return concepts or (self.options.keep.output and not recording.output_failure)

    def on_output(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """What a UNet's cross-attention, which was told to `on_attention` with the same arguments, gave out."""
        call, conds = self._call, self._calls.conds
        if call is None or conds is None or call.attended is None:
            return
        (layer, grid, attention), call.attended = call.attended, None
        self._router.add_unet_output(conds, call, with_output(attention, args, kwargs, output), layer, grid)

    def leave_out(self, reason: str, concepts: bool = True) -> None:
        """Words alone are recorded of this run, or words and concepts."""
        if self._call is not None:
            self._call.attended = None
        if self.options.keep.output:
            self._recording.fail_outputs(UnsupportedModel(reason))
        if concepts and self._block_concepts is not None:
            self._recording.fail_concepts(UnsupportedModel(reason))

    def on_attention(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], seen: LseCapture | None = None, output: Any = None
    ) -> None:
        """The attention call that was next_call, with the arguments of `optimized_attention`, and what it gave out."""
        call, next_call = self._call, self.next_call
        if call is None or next_call is None or self._calls.conds is None:
            return
        try:
            if call.layout is None and self.override is None and self._router.add_known(call, *next_call, args, kwargs):
                self.next_call = None
                return
            attention = from_comfyui(args, kwargs)
            if call.layout is not None:
                attention = attention.with_lse(None if seen is None else seen.of(attention))
                if self.reads_output:
                    attention = with_output(attention, args, kwargs, output)
                options = kwargs.get("transformer_options") or {}
                number = self._router.add_transformer(self._calls.conds, call, options, attention)
                call.layers += number is not None
                if self.override is not None and number is not None:
                    self.override.expect(call, number, False, attention, args, kwargs)
                    self.override.compare(output)
            else:
                self.next_call = None
                added = self._router.add_unet(self._calls.conds, call, *next_call, attention)
                if self.override is not None and added:
                    self.override.expect(call, layer_of(*next_call), next_call[1], attention, args, kwargs)
        except Exception as error:
            self.fail(error)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """While an attention runs that `on_attention` is told of."""
        self._attending += 1
        try:
            yield
        finally:
            self._attending -= 1

    def on_unreported_attention(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """One of the host's attention functions runs, with its arguments; ends the recording of a transformer where nobody
        tells of an attention to the text."""
        call = self._call
        if self._attending or call is None or call.counted is None or self.next_call is None:
            return
        try:
            call.counted.check_unreported(from_comfyui(args, kwargs))
        except Exception as error:
            self.fail(error)

    @contextmanager
    def blocks_watched(self) -> Iterator[None]:
        """While the sampler runs: a block of a transformer nothing of whose attention to the text is told ends the recording,
        too."""
        self._blocks = watched = UnrecordedBlocks(self._model)
        try:
            yield
        finally:
            watched.clear()

    def concepts_attached(self) -> AbstractContextManager[None]:
        """While the sampler runs: hooks on the model's blocks are off again at its end, whatever happens."""
        return nullcontext() if self._block_concepts is None else self._block_concepts.attached()

    # -- the end ----------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Stop recording; the sampler goes on."""
        self._recording.fail(error)
        self._router.clear()
        self._drop_call()

    def heat_maps(self) -> list[HeatMaps]:
        """The maps of every picture of the batch, on the CPU.

        Raises:
            NothingRecorded: nothing was recorded; the text says why.
        """
        self._close_step()
        self._prove_layers()
        if not self.failure and not any(group.accumulator.buffers for group in self._recording.groups):
            seen = self._recording.num_steps, self._calls.in_pieces, self._predicted, self.sampling_step
            raise NothingRecorded(nothing_recorded(*seen))
        relations = [group.accumulator.relations for group in self._recording.groups]
        if self.options.keep.relations and all(one.num_queries is None for one in relations):
            self._missing = no_relations(type(self._model).__name__)
        size = (self._latent[-2] * self._scale, self._latent[-1] * self._scale)
        return [self._recording.finish(image, size) for image in range(self._latent[0])]

    def live_heat(self, word: str, size: Size) -> Tensor | None:
        """A word's heat over the steps so far, in the first picture: float32 `[h, w]` on the CPU, None before the first step.

        Waits for the device.

        Raises:
            NothingRecorded: recording stopped.
            BadPrompt: the prompt's words are not known.
            WordNotFound: the prompt has no such word; the text lists those it has.
        """
        self._prove_layers()
        if self.failure:
            raise NothingRecorded(self.failure)
        if not words_are_known(self._recording, 0):
            raise BadPrompt(
                "the words of this prompt are not known while it is sampled. Encode it with the CLIP that comes out of Record."
            )
        try:
            return heat_so_far(self._recording, 0, word, size)
        except WordNotFound:
            raise
        except Exception as error:  # sums that were worked off by half would be wrong
            self.fail(error)
            raise NothingRecorded(self.failure) from error

    def _prove_layers(self) -> None:
        """Text and attention at the layers are the model's, or recording ends; waits for the device."""
        if not self.failure:
            try:
                self.layer_text.require()
                if self.override is not None:
                    self.override.require()
                if self._blocks is not None:
                    self._blocks.require()
            except NothingRecorded as error:
                self.fail(error)

    def close(self) -> None:
        """Let go of everything that is the host's."""
        self._model = None
        self._calls.clear()
        self.layer_text.clear()
        self.override = None
        self._drop_call()
        self._blocks = None
        self._router.clear()
        if self._block_concepts is not None:
            self._block_concepts.clear()
        self._recording.clear()
