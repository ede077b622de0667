"""One call of the host's `process_images`, recorded. It hangs on the host's own processing object and dies with it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from daam_core.capture.concept_texts import ConceptTexts
from daam_core.capture.forge_families import ForgeModel
from daam_core.capture.heat_so_far import heat_so_far
from daam_core.capture.region import Area
from daam_core.capture.unet_forward import UNetInputs
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.errors import DaamLensError, NothingRecorded, recording_failure
from daam_core.maps.heatmaps import HeatMaps
from daam_core.prompt.prompt import Prompt
from daam_core.types import Grid, Size

from . import engine_words
from .batch import NO_STEP, PIECES, Batch
from .batch_rows import Side
from .concepts import encode, encode_for_transformer
from .context_proof import ContextHooks
from .crop_region import area_of
from .finished_image import FinishedImage
from .hosts import UNetCall, WebUI
from .joined_answers import JoinedAnswers
from .latent_proof import OTHER_PICTURE
from .live_preview import LivePreview
from .prompt_schedule import PromptSchedule
from .sampling_step import SamplingStep, columns_of, crossattn, sampling_step, unmarked
from .schedule import PassTexts, groups
from .settings import NO_PASS, Settings
from .text_proof import TextProof
from .tokenization import engine_of, read
from .transformer_calls import TransformerHooks, check_frames, family_of

logger = logging.getLogger("daam_lens")


class Reader(Protocol):
    """Gives the words of a line of the prompt, or of the negative prompt."""

    def __call__(self, line: str, negative: bool) -> Prompt: ...


@dataclass(frozen=True)
class _Attached:
    """The hooks on a UNet: on its attention, and on the text that its layers are given."""

    attention: UNetAttentionHooks
    context: ContextHooks


class RecordingSession:
    """Records one run.

    Args:
        settings: what was asked for.
        host: the WebUI.
    """

    def __init__(self, settings: Settings, host: WebUI) -> None:
        self.settings, self.failure, self.host = settings, "", host
        self.finished: list[FinishedImage] = []
        self._batches: dict[int, Batch] = {}
        self._passes: dict[int, dict[bool, tuple[PassTexts, Area]]] = {}
        self._unet: Any = None
        self._hooks: dict[bool, _Attached] = {}
        self._attached: _Attached | None = None
        self._transformer: tuple[str, TransformerHooks] | None = None
        self._batch: Batch | None = None
        self._params: weakref.ref[Any] | None = None
        self._pass: tuple[PassTexts, Area] | None = None
        self._step: SamplingStep | None = None
        self._answers = JoinedAnswers()
        self._texts: TextProof | None = None
        self._reads_context = False
        self._left_out: set[int] = set()
        self._concepts: ConceptTexts | Exception | None = None
        word = settings.live_word.strip()
        self._live = LivePreview(word, host.preview_state()) if word else None

    # -- before the sampler -----------------------------------------------------------------------------------------

    def encode_concepts(self, model: Any) -> None:
        """Read the concepts by a checkpoint's text encoder, once a run; what goes wrong ends them, not the words."""
        if self._concepts is None and self.settings.concepts.strip() and not self.failure:
            try:
                asked, family = self.settings.asked_concepts(), family_of(self.host.unet(model), model)
                if family is None:
                    self._concepts = encode(self.host, model, asked)
                else:
                    self._concepts = encode_for_transformer(self.host, model, family[1].engine, asked)
            except Exception as error:
                self._concepts = error

    def prove_texts(self, p: Any, second: bool = False) -> None:
        """Make sure of what the prompts of the batch that comes are read as, where the host's own parser may not read them.

        Args:
            second: before the second pass of hires fix, whose LoRAs are in place now.
        """
        if second and self.host.encodes_ahead():
            return
        self._texts = None
        if self.failure:
            return
        try:
            model = p.sd_model
            if self.host.reads_otherwise() and family_of(self.host.unet(model), model) is None:
                now = [one for one in _passes(p) if one == second or self.host.encodes_ahead()]
                passes = [self.host.pass_texts(p, one) for one in now if self._is_wanted(p, one)]
                self._texts = TextProof(self.host, model, passes, self.settings.negative)
        except Exception as error:
            self.fail(error)

    def concept_failures(self) -> list[str]:
        """Why there are no concepts, a sentence for each batch that has none."""
        return [why for batch in self._batches.values() if (why := batch.recording.concept_failure)]

    def live_failures(self) -> list[str]:
        """Why no heat was shown while it sampled, where it was asked for."""
        return [self._live.failure] if self._live is not None and self._live.failure else []

    def notes(self) -> list[str]:
        """What has to be said of the maps, and of what else was asked for."""
        return [*self.concept_failures(), *self.live_failures(), *self._answers.notes()]

    # -- the sampler ------------------------------------------------------------------------------------------------

    def begin_step(self, params: Any, unet: Any, model: Any) -> Sequence[Any]:
        """The sampler wants a prediction (`CFGDenoiserParams`); the hooks to attach for it, none where nothing is wanted."""
        denoiser = params.denoiser
        p = denoiser.p
        second = bool(getattr(p, "is_hr_pass", False))
        left_out = not self._is_wanted(p, second)
        if left_out:
            self._left_out.add(int(p.iteration))
        if self.failure or left_out:
            if self._live is not None:
                self._live.release()
            return ()
        iteration = int(p.iteration)
        family = family_of(unet, model)
        if iteration not in self._batches:
            width = int(crossattn(params.text_cond).shape[-1])
            self._batches[iteration] = self._start(p, self._reader(model, family, width))
        self._batch = self._batches[iteration]
        # Callbacks of others come after this one and may exchange the conditioning, so it is read at the first call.
        self._params, self._pass, self._step = weakref.ref(params), self._passes[iteration][second], None
        self._reads_context = not self.host.changes_keys()
        if self._live is not None:
            self._live.attach((iteration, second), p)
        joined = any(len(parts) > 1 for parts in self._pass[0].prompts)
        answers = self.host.watch_answers(model, self._compare_answers) if joined else nullcontext()
        if family is not None:
            return self._transformer_hooks(unet, *family), answers
        self._transformer = None
        self._attached = self._hooks_of(unet, self._batch.wants_self)
        return self._attached.attention, self._attached.context, answers

    def begin_call(self, sample: Tensor, context: Tensor | None, given: Mapping[str, Any]) -> None:
        """The UNet or transformer is called with the latents `sample` `[rows, c, …, h, w]`; `given` is what it gets by name,
        with Forge's `transformer_options`."""
        batch, params = self._batch, self._params() if self._params else None
        if self.failure or batch is None or params is None or self._pass is None:
            return
        latent = tuple(map(int, sample.shape))
        check_frames(latent)
        if self._step is None:
            self._step = sampling_step(params, *self._pass)
            batch.begin_step(self._step)
            if self._texts is not None:
                self._texts.require(self._step, params.denoiser.p.sd_model)
        context = None if context is None else unmarked(columns_of(context))
        size = (latent[-2], latent[-1])
        options = given.get("transformer_options") or {}
        call = UNetCall(latent[0], size, context, tuple(options.get("cond_or_uncond", ())))
        own = size != self._step.size or self._step.latents.holds(sample, params.x)
        self._step.shown |= own
        labels = self.host.labels(call, self._step) if own else [None] * call.rows
        self._step.labelled |= any(labels)
        hooks = self._attached.attention if self._attached else None
        batch.begin_call(labels, self._step, size, context, self.host.repeats_context, hooks)
        if self._transformer is not None:
            if context is None:
                raise NothingRecorded("the model was given no text")
            self._transformer[1].begin(batch, latent, context, given)

    def end_call(self) -> None:
        """The call is over; a UNet's layers have told so themselves."""
        if self._transformer is not None and self._batch is not None and not self.failure:
            self._transformer[1].end()
            self._batch.end_call()

    def begin_answers(self, answers: Tensor) -> None:
        """The model has answered, `[rows, c, h, w]`; other extensions may change that now."""
        if self._step is not None and not self.failure and any(label.group for label in self._step.rows):
            self._answers.begin(answers)

    def _compare_answers(self, used: Tensor, answers: Tensor) -> None:
        if not self.failure:
            self._answers.compare(used, answers)

    def end_step(self) -> None:
        """The prediction is there."""
        self._answers.end()
        step, batch = self._step, self._batch
        self._params = self._step = None
        if batch is None or step is None or self.failure:
            return
        if not step.shown:
            raise NothingRecorded(OTHER_PICTURE)
        if not step.labelled:
            raise NothingRecorded(PIECES)
        batch.end_step(step.sigma)
        if self._live is not None:
            self._live.after_step(partial(self._live_heat, batch, step.area), batch.num_images, step.size, step.sigma)

    def _live_heat(self, batch: Batch, area: Area, image: int, size: Size) -> Tensor | None:
        return heat_so_far(batch.recording, image, self.settings.live_word.strip(), size, area)

    def fail(self, error: Exception) -> None:
        """Stop recording; the sampler goes on. What was foreseen is one line in the log, anything else has a traceback."""
        if not self.failure:
            self.failure = recording_failure(error)
            logger.warning("DAAM Lens: %s", self.failure, exc_info=None if isinstance(error, DaamLensError) else error)
        self._batches.clear()
        self._batch = self._params = self._step = None
        if self._live is not None:
            self._live.release()

    # -- the UNet, see `daam_core.capture.unet_forward.AttentionReceiver` ---------------------------------------------

    def wants_forward(self) -> bool:
        """Whether a call of the UNet may be recorded."""
        return self._batch is not None and not self.failure

    def begin_forward(self, _inputs: UNetInputs) -> bool:
        """The UNet is called; `begin_call` looked at what it is given."""
        return True

    def planned(self) -> None:
        """Every layer comes to `on_attention`: which texts are at work may change from call to call."""
        return None

    def on_attention(self, layer: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        """One attention layer."""
        if self._batch is not None and self._attached is not None:
            self._batch.on_attention(self._attached.attention.layers[layer], layer, grid, q, k, cross)

    def end_forward(self, _finished: bool) -> None:
        """The UNet is done."""
        if self._batch is not None:
            self._batch.end_call()

    def _on_context(self, context: Tensor) -> None:
        attached = self._attached
        # A layer that is asked for a concept's keys, between two of the model's own calls, is no witness of its text.
        if self._batch is None or not self._reads_context or attached is None or not attached.attention.thread:
            return
        try:
            self._batch.on_context(context)
        except Exception as error:
            self.fail(error)

    # -- pictures ---------------------------------------------------------------------------------------------------

    def take(self, iteration: int, image: int, picture: NDArray[np.uint8], seed: int, prompt: str, saved: bool = True) -> None:
        """The host finished a picture, uint8 `[H, W, 3]`, which it is about to write to a file or not."""
        if batch := self._batches.get(iteration):
            batch.pictures[image] = picture
        self.finished.append(FinishedImage(iteration, image, picture, seed, prompt, saved))

    def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
        """The maps of every finished picture that has not been asked for yet; the recordings are let go of.

        Raises:
            NothingRecorded: recording failed, or there was nothing to record; the text says why. Pictures of which nothing was
                recorded are told behind the others.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        bare = ""
        for taken in self.finished:
            batch = self._batches.get(taken.iteration)
            if batch is not None and taken.image in batch.pictures:
                yield taken, batch.heat_maps(taken.image, (taken.picture.shape[0], taken.picture.shape[1]))
            else:
                bare = NO_PASS.format(self.settings.hires) if taken.iteration in self._left_out else NO_STEP
        if bare:
            raise NothingRecorded(bare)

    def close(self) -> None:
        """Let go of everything that is the host's or large."""
        if self._live is not None:
            self._live.release()
            self._live.log_cost()
            self._live = None
        self._batches.clear()
        self._hooks.clear()
        self._unet = self._attached = self._batch = self._params = self._step = self._transformer = self._texts = None
        self._answers = JoinedAnswers()  # a step that was interrupted left the model's answers there

    # -- parts ------------------------------------------------------------------------------------------------------

    def _reader(self, model: Any, family: tuple[str, ForgeModel] | None, width: int) -> Reader:
        """Gives the words of a line, of the prompt or of the negative prompt; `width` is of a column of the conditioning."""
        if family is None:
            engine = engine_of(model)
            return lambda line, negative: read(engine, line, self.host.chunks(engine, line))
        text_encoder = getattr(model, family[1].engine)
        pictures = bool(self.host.references())
        return lambda line, negative: engine_words.read(text_encoder, line, negative, width, pictures)

    def _is_wanted(self, p: Any, second: bool) -> bool:
        """Whether the first pass of hires fix, or the `second`, is recorded; where there is one pass, it is."""
        return not getattr(p, "enable_hr", False) or self.settings.hires in ("both", "second" if second else "first")

    def _start(self, p: Any, reader: Reader) -> Batch:
        passes = {second: self.host.pass_texts(p, second) for second in _passes(p)}
        self._passes[int(p.iteration)] = {second: (texts, area_of(p, second)) for second, texts in passes.items()}
        wanted = [texts for second, texts in passes.items() if self._is_wanted(p, second)]
        count = len(p.prompts)

        def schedules(negative: bool) -> list[PromptSchedule]:
            known: dict[str, PromptSchedule] = {}
            each = []
            for image in range(count):
                texts = groups(wanted, image, negative)
                key = repr(texts)
                if key not in known:
                    known[key] = PromptSchedule(texts, partial(reader, negative=negative))
                each.append(known[key])
            return each

        together = all(len(parts) == 1 for one in wanted for parts in one.prompts)
        prompts = schedules(False)
        made: list[tuple[Side, tuple[int, ...], Sequence[PromptSchedule]]] = [
            ("prompt", images, [prompts[i] for i in images]) for images in _groups(count, together)
        ]
        if self.settings.negative:
            made.append(("negative", tuple(range(count)), schedules(True)))
        joined = [max(len(one.prompts[image]) for one in wanted) for image in range(count)]
        return Batch(self.settings.keep, made, self._concepts, joined)

    def _transformer_hooks(self, model: Any, name: str, family: ForgeModel) -> TransformerHooks:
        # As with UNets: one model at a time.
        if self._unet is not model:
            if self._transformer is not None and self._transformer[0] != name:
                raise NothingRecorded(
                    f"A model of another family ({name}) took over from the first ({self._transformer[0]}), whose words are "
                    "others. Paint with one checkpoint to get heat maps."
                )
            self._unet, self._attached = model, None
            self._hooks.clear()
            self._transformer = name, TransformerHooks(model, family, self.host.references, self.fail)
        assert self._transformer is not None
        return self._transformer[1]

    def _hooks_of(self, unet: Any, self_attention: bool) -> _Attached:
        # One UNet at a time: a host that loads another checkpoint for hires fix or the refiner wants the first one's memory
        # back.
        if self._unet is not unet:
            self._unet = unet
            self._hooks.clear()
        if self_attention not in self._hooks:
            attention = UNetAttentionHooks(unet, self, self_attention)
            self._hooks[self_attention] = _Attached(attention, ContextHooks(unet, self._on_context))
        return self._hooks[self_attention]


def _passes(p: Any) -> tuple[bool, ...]:
    """Whether each pass of a run is the second of hires fix."""
    return (False, True) if getattr(p, "enable_hr", False) else (False,)


def _groups(images: int, together: bool) -> list[tuple[int, ...]]:
    return [tuple(range(images))] if together else [(i,) for i in range(images)]
