"""Hooks a recording into a run of ComfyUI's sampler: by ComfyUI's own extension points, on the run's own options.

The model that Record gives out carries one OUTER_SAMPLE wrapper and nothing else. When a sampler runs, the wrapper puts
everything else (see `sampler_listeners`) into the options that ComfyUI made for this one run, and ComfyUI throws these away
at its end: nothing has to be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ...daam_core.capture.comfyui_concepts import concepts_refusal, needs_whole_texts
from ...daam_core.capture.comfyui_families import READ_IN_COMFYUI, comfyui_model_of, comfyui_refusal
from ...daam_core.capture.comfyui_model import is_unet
from ...daam_core.capture.named_attention import named_attention
from ...daam_core.errors import DaamLensError, NothingRecorded, recording_failure
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.prompt.concepts import Concept
from . import sampler_listeners as listeners
from .concept_encoding import ConceptEncoder
from .live_preview import LivePreview
from .missing_maps import later_run_of
from .node_runs import NODE_RUNS
from .packed_latents import Shapes, is_packed, unpacked
from .record_options import Options
from .recording_session import RecordingSession
from .recording_store import RECORDINGS, Source
from .sampler_listeners import KEY, TORCH_COMPILE_KWARGS
from .unreported_attention import unreported_attention_ends

logger = logging.getLogger("daam_lens")
_LATENT, _CALLBACK, _SHAPES = 1, 5, 8  # positions of `latent_image`, `callback` and `latent_shapes` among those of outer_sample


def recording_model(model: Any, options: Options, source: Source) -> Any:
    """A clone of a MODEL that records every run of a sampler; an earlier Record on it gives way."""
    recorded = model.clone()
    recorded.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    recorded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, RecordedSampling(options, source))
    return recorded


def reads_concepts(model: Any) -> bool:
    """Whether concepts are read of a MODEL, so that they have to be encoded."""
    network = model.get_model_object("diffusion_model")
    return _kind(model.model) not in _PICTURES_ONLY if is_unet(network) else not concepts_refusal(network)


def concept_encoder(model: Any, concepts: Sequence[Concept]) -> ConceptEncoder | None:
    """What encodes concepts beside the prompts of a MODEL; None where there are none, or they are not read of it."""
    if not concepts or not reads_concepts(model):
        return None
    network = model.get_model_object("diffusion_model")
    return ConceptEncoder(concepts, together=is_unet(network), whole=needs_whole_texts(network))


class RecordedSampling:
    """The OUTER_SAMPLE wrapper: opens a session, samples, keeps what was recorded under the hash of the latent."""

    def __init__(self, options: Options, source: Source) -> None:
        self._options, self._source = options, source

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            guider = executor.class_obj
            shapes = listeners.argument(args, kwargs, _SHAPES, "latent_shapes", None)
            session = _open(guider, self._options, listeners.argument(args, kwargs, 0, "noise"), shapes)
            last = _Last(session, self._live(session, guider), shapes)
            given, named = _with_callback(args, kwargs, last)
        except Exception as error:  # the picture comes first
            return self._without(executor, args, kwargs, error)
        try:
            listeners.safely(session, listeners.install, session, guider.model_options)
            compiled = TORCH_COMPILE_KWARGS in guider.model_options
            unseen = unreported_attention_ends(session, compiled)
            with listeners.compiled_apart(guider.model_options), _named_attention(session), unseen, session.concepts_attached():
                output = executor(*given, **named)
            self._keep(session, output, last, guider, _earlier_runs(args, kwargs, output, shapes))
            if last.live is not None:
                last.live.log_cost()
            return output
        finally:
            session.close()

    def _live(self, session: RecordingSession, guider: Any) -> LivePreview | None:
        word = self._options.live_word
        if not word:
            return None
        latent_format = guider.model_patcher.model.latent_format
        return LivePreview(word, self._source.node, session.live_heat, latent_format, session.latent_size)

    def _without(self, executor: Any, args: Any, kwargs: Any, error: Exception) -> Any:
        output = executor(*args, **kwargs)
        shapes = listeners.argument(args, kwargs, _SHAPES, "latent_shapes", None)
        _earlier_runs(args, kwargs, output, shapes)
        self._remember([unpacked(output, shapes)], None, _told(error))
        return output

    def _keep(self, session: RecordingSession, output: Any, last: _Last, guider: Any, earlier: str) -> None:
        """Remember the run, with what is to be told of `earlier` ones for its picture, under the latent that was sampled, and
        under the clean one that some samplers also give out."""
        latents, maps, note = [unpacked(output, last.shapes)], None, ""
        try:
            if last.clean is not None and last.clean.shape == output.shape:
                clean = guider.model_patcher.model.process_latent_out(last.clean.cpu())
                latents.append(unpacked(clean, last.shapes))
            maps, failure = session.heat_maps(), ""
            note = " ".join(filter(None, (session.note, earlier)))
        except Exception as error:
            failure = str(error) if isinstance(error, NothingRecorded) else _told(error)
        self._remember(latents, maps, failure, note)

    def _remember(self, latents: list[Any], maps: list[HeatMaps] | None, failure: str, note: str = "") -> None:
        """Keep what there is under its latents; whatever becomes of that, the picture is made."""
        try:
            RECORDINGS.keep(latents, maps, failure, self._source, note)
        except Exception:
            logger.warning("DAAM Lens: the recording of this picture could not be kept.", exc_info=True)


def _earlier_runs(args: Any, kwargs: Any, output: Any, shapes: Shapes | None) -> str:
    """What is to be told of earlier runs of the sampler for this output, empty where there were none; whatever becomes of the
    question, the picture is made."""
    try:
        begun = listeners.argument(args, kwargs, _LATENT, "latent_image")
        return later_run_of(NODE_RUNS.add(begun, output), RECORDINGS.gave_out(unpacked(begun, shapes)))
    except Exception:
        logger.warning("DAAM Lens: whether this picture was sampled before is not known.", exc_info=True)
        return ""


def _open(guider: Any, options: Options, noise: Any, shapes: Shapes | None) -> RecordingSession:
    if TORCH_COMPILE_KWARGS in guider.model_options and torch.are_deterministic_algorithms_enabled():
        raise NothingRecorded(
            "a compiled model cannot be recorded while PyTorch is told to be deterministic. "
            "Leave out TorchCompileModel, or start ComfyUI without --deterministic"
        )
    patcher = guider.model_patcher
    model = patcher.get_model_object("diffusion_model")  # the attribute may still be that of a clone that ran before
    family = comfyui_model_of(model)
    if reason := comfyui_refusal(model):
        raise NothingRecorded(f"this model, {type(model).__name__}, cannot be read: {reason}. Nothing of it was touched")
    if family is None and not is_unet(model):
        raise NothingRecorded(
            f"this model, {type(model).__name__}, is not one that DAAM Lens reads, so nothing of it was touched. "
            f"It reads {READ_IN_COMFYUI}"
        )
    if is_packed(shapes) and (family is None or not family.packed):
        raise NothingRecorded(
            f"this model, {type(model).__name__}, samples something else (sound, a camera) in one latent with the picture, "
            "which is not read of it"
        )
    if _kind(patcher.model) in _PICTURES_ONLY:
        raise NothingRecorded(
            f"this model, {type(patcher.model).__name__}, is given a picture and no text, so there are no words to map"
        )
    scale = int(getattr(patcher.model.latent_format, "spacial_downscale_ratio", 8))
    latent = shapes[0] if shapes is not None and is_packed(shapes) else noise.shape
    return RecordingSession(options, guider, latent, model, family, scale)


_PICTURES_ONLY = {"comfy.model_base.SVD_img2vid", "comfy.model_base.SV3D_u", "comfy.model_base.SV3D_p"}
"""UNets whose cross-attention reads a picture."""


def _kind(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__name__}"


def _named_attention(session: RecordingSession) -> AbstractContextManager[None]:
    """What hands its options to nobody calls its attention by a name."""
    module = "" if session.family is None else session.family.attention_module
    whole = f"comfy.ldm.{module}" if module else ""
    return named_attention(whole, "optimized_attention", listeners.attention_override(session, None), shown_elsewhere=True)


class _Last:
    """The sampler's callback, which also tells which step it is and what the clean latent looks like."""

    def __init__(self, session: RecordingSession, live: LivePreview | None = None, shapes: Shapes | None = None) -> None:
        self.clean: torch.Tensor | None = None
        self.below: Callable[..., Any] | None = None
        self.live, self.shapes = live, shapes
        self._session = session

    def __call__(self, step: int, clean: Any, x: Any, total: int) -> Any:
        self._session.sampling_step = step + 1
        self.clean = clean
        if self.below is None:
            return None
        if self.live is None:
            return self.below(step, clean, x, total)
        return self.live.during(partial(self.below, step, clean, x, total), unpacked(clean, self.shapes))


def _with_callback(args: tuple[Any, ...], kwargs: dict[str, Any], last: _Last) -> tuple[list[Any], dict[str, Any]]:
    given = list(args)
    below = listeners.argument(args, kwargs, _CALLBACK, "callback", None)
    if below is not None and not callable(below):
        raise NothingRecorded(f"the sampler was started with a {type(below).__name__} where its callback stands")
    if len(given) > _CALLBACK:
        last.below, given[_CALLBACK] = given[_CALLBACK], last
        return given, kwargs
    last.below = kwargs.get("callback")
    return given, {**kwargs, "callback": last}


def _told(error: Exception) -> str:
    """The sentence for a recording that stopped; what was not foreseen has its traceback in the log."""
    if not isinstance(error, DaamLensError):
        logger.warning("DAAM Lens: the recording stopped", exc_info=error)
    return recording_failure(error)
