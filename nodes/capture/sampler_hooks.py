"""Hooks a recording into a run of ComfyUI's sampler: by ComfyUI's own extension points, on the run's own options.

The model that Record gives out carries one OUTER_SAMPLE wrapper and nothing else. When a sampler runs, the wrapper puts
everything else into the options that ComfyUI made for this one run, and ComfyUI throws these away at its end: nothing
has to be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from comfy import patcher_extension
from comfy.patcher_extension import WrappersMP

from ...daam_core.capture.comfyui_concepts import concepts_refusal, needs_whole_texts
from ...daam_core.capture.comfyui_families import READ_IN_COMFYUI, comfyui_model_of, comfyui_refusal
from ...daam_core.capture.comfyui_model import is_unet
from ...daam_core.capture.lse_capture import LseCapture
from ...daam_core.capture.named_attention import named_attention
from ...daam_core.errors import DaamLensError, NothingRecorded, recording_failure
from ...daam_core.maps.heatmaps import HeatMaps
from ...daam_core.prompt.concepts import Concept
from .concept_encoding import ConceptEncoder
from .live_preview import LivePreview
from .packed_latents import Shapes, is_packed, unpacked
from .record_options import Options
from .recording_session import RecordingSession
from .recording_store import RECORDINGS, Source

logger = logging.getLogger("daam_lens")
KEY = "daam_lens"
TORCH_COMPILE_KWARGS = "torch_compile_kwargs"
"""Where ComfyUI notes in a model's options that it is compiled."""
_CALLBACK, _SHAPES = 5, 8  # positions of `callback` and `latent_shapes` among the arguments of outer_sample


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
            shapes = _argument(args, kwargs, _SHAPES, "latent_shapes", None)
            session = _open(guider, self._options, _argument(args, kwargs, 0, "noise"), shapes)
            last = _Last(session, self._live(session, guider), shapes)
            given, named = _with_callback(args, kwargs, last)
        except Exception as error:  # the picture comes first
            return self._without(executor, args, kwargs, error)
        try:
            _safely(session, _install, session, guider.model_options)
            with _compiled_apart(guider.model_options), _named_attention(session), session.concepts_attached():
                output = executor(*given, **named)
            self._keep(session, output, last, guider)
            if last.live is not None:
                last.live.tell_cost()
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
        shapes = _argument(args, kwargs, _SHAPES, "latent_shapes", None)
        self._remember([unpacked(output, shapes)], None, _told(error))
        return output

    def _keep(self, session: RecordingSession, output: Any, last: _Last, guider: Any) -> None:
        """Remember the run under the latent that was sampled, and under the clean one that some samplers also give out."""
        latents, maps, note = [unpacked(output, last.shapes)], None, ""
        try:
            if last.clean is not None and last.clean.shape == output.shape:
                clean = guider.model_patcher.model.process_latent_out(last.clean.cpu())
                latents.append(unpacked(clean, last.shapes))
            maps, failure, note = session.heat_maps(), "", session.note
        except Exception as error:
            failure = str(error) if isinstance(error, NothingRecorded) else _told(error)
        self._remember(latents, maps, failure, note)

    def _remember(self, latents: list[Any], maps: list[HeatMaps] | None, failure: str, note: str = "") -> None:
        """Keep what there is under its latents; whatever becomes of that, the picture is made."""
        try:
            RECORDINGS.keep(latents, maps, failure, self._source, note)
        except Exception:
            logger.warning("DAAM Lens: the recording of this picture could not be kept.", exc_info=True)


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
    return named_attention(whole, "optimized_attention", _override(session, None), shown_elsewhere=True)


@contextmanager
def _compiled_apart(model_options: dict[str, Any]) -> Iterator[None]:
    """What is compiled during a recorded run is used in recorded runs alone, and the other way round.

    Newer TorchCompileModel nodes call PyTorch to compare no option of a run with those it compiled for. A model compiled
    without Record would then never be recorded, and one compiled with it would look for Record in a run that has none, and
    fail. Compiling it a second time does not help: PyTorch keeps what it compiled with the code it came from. But it always
    compares its global state: one bit of it, without effect while deterministic algorithms are off, tells the two apart.

    Two other ways were run and are worse. Under `torch.compiler.set_stance("force_eager")` the recorded run is not compiled,
    and its picture is another in the last bits (inductor against eager: 2e-7). A guard of the model's own, an attribute that
    our functions read, is only in the graph that was made with them: one made before is used again, and nothing is recorded.
    """
    if TORCH_COMPILE_KWARGS not in model_options:
        yield
        return
    before = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False, warn_only=not before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False, warn_only=before)


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
    below = _argument(args, kwargs, _CALLBACK, "callback", None)
    if below is not None and not callable(below):
        raise NothingRecorded(f"the sampler was started with a {type(below).__name__} where its callback stands")
    if len(given) > _CALLBACK:
        last.below, given[_CALLBACK] = given[_CALLBACK], last
        return given, kwargs
    last.below = kwargs.get("callback")
    return given, {**kwargs, "callback": last}


def _install(session: RecordingSession, model_options: dict[str, Any]) -> None:
    """Put the listeners into the options of one run."""
    if TORCH_COMPILE_KWARGS in model_options:
        session.leave_out(
            "of a compiled model neither the output of its attention nor its blocks are read", session.family is not None
        )
    options = model_options.setdefault("transformer_options", {})
    for kind, wrapper in (
        (WrappersMP.PREDICT_NOISE, _predict(session)),
        (WrappersMP.CALC_COND_BATCH, _batch(session)),
        (WrappersMP.APPLY_MODEL, _model(session)),
    ):
        patcher_extension.add_wrapper_with_key(kind, KEY, wrapper, model_options, is_model_options=True)
    options["optimized_attention_override"] = _override(session, options.get("optimized_attention_override"))
    if session.family is not None:
        return
    patches = dict(options.get("patches", {}))
    session.layer_text.same_text = not all(map(_is_columnwise, patches.get("attn2_patch") or [None]))
    patches["attn2_patch"] = [*patches.get("attn2_patch", []), _attention_patch(session, own=False)]
    if session.options.keep.self_attention:
        patches["attn1_patch"] = [*patches.get("attn1_patch", []), _attention_patch(session, own=True)]
    options["patches"] = patches
    replaced = options.get("patches_replace", {}).get("attn2", {})
    if replaced:
        wrapped = {block: _RecordedReplacement(session, replacement) for block, replacement in replaced.items()}
        options["patches_replace"] = {**options["patches_replace"], "attn2": wrapped}


def _is_columnwise(patch: Any) -> bool:
    """Whether another patch changes each column of the text by itself, so that words stay where they are: ComfyUI's own
    hypernetworks do."""
    return type(patch).__module__.endswith("nodes_hypernetwork") or getattr(patch, "__module__", "").endswith(
        "nodes_hypernetwork"
    )


def _predict(session: RecordingSession) -> Callable[..., Any]:
    def predict(executor: Any, *args: Any, **kwargs: Any) -> Any:
        _safely(session, lambda: session.begin_step(_argument(args, kwargs, 1, "timestep")))
        out = executor(*args, **kwargs)
        _safely(session, session.end_step)
        return out

    return predict


def _batch(session: RecordingSession) -> Callable[..., Any]:
    def batch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        names = ("model", "conds", "x_in", "timestep")
        _safely(session, lambda: session.begin_batch(*(_argument(args, kwargs, i, names[i]) for i in (1, 2, 3))))
        try:
            return executor(*args, **kwargs)
        finally:
            session.end_batch()

    return batch


def _model(session: RecordingSession) -> Callable[..., Any]:
    def model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        def begin() -> None:
            context = _argument(args, kwargs, 3, "c_crossattn", None)
            options = _argument(args, kwargs, 5, "transformer_options", None)
            more = {name: value for name, value in kwargs.items() if name not in _MODEL_ARGUMENTS}
            x = unpacked(_argument(args, kwargs, 0, "x"), more.get("latent_shapes"))
            session.begin_model(x, context, options or {}, more)

        _safely(session, begin)
        try:
            return executor(*args, **kwargs)
        finally:
            _safely(session, session.end_model)

    return model


_MODEL_ARGUMENTS = ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")
"""Named arguments of ComfyUI's `apply_model`; a family of models adds its own."""


def _override(session: RecordingSession, below: Callable[..., Any] | None) -> Callable[..., Any]:
    """An attention override that calls what was there before, or the function itself, and only listens."""

    def unet(func: Any, *args: Any, **kwargs: Any) -> Any:
        if session.next_call is not None:  # before the function, which may do with its arguments what it likes
            _outside_compile(session.on_attention, args, kwargs)
        return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)

    def transformer(func: Any, *args: Any, **kwargs: Any) -> Any:
        if session.next_call is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        seen = None if torch.compiler.is_compiling() else LseCapture()
        with nullcontext() if seen is None else seen:
            out = func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        _outside_compile(session.on_attention, args, kwargs, seen, out)
        return out

    def unet_with_output(func: Any, *args: Any, **kwargs: Any) -> Any:
        if session.next_call is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        session.on_attention(args, kwargs)
        out = func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        session.on_output(args, kwargs, out)
        return out

    if session.family is not None:
        return transformer
    return unet_with_output if session.reads_output else unet


def _attention_patch(session: RecordingSession, own: bool) -> Callable[..., Any]:
    """A patch that hands its arguments on as they are: it tells that attention comes next, and where.

    UNets call patches with four arguments and take three back. Newer models add keywords and take back a dictionary of
    what was changed; no UNet does so today.
    """

    def patch(*args: Any, **kwargs: Any) -> Any:
        options = _argument(args, kwargs, 3, "extra_options", None)
        if isinstance(options, Mapping):
            _outside_compile(session.set_next_call, options, own, _argument(args, kwargs, 1, "context", None))
        return args[:3] if len(args) == 4 and not kwargs else {}

    return patch


def _outside_compile(call: Callable[..., None], *args: Any) -> None:
    """Call `call` where torch.compile does not look; the wrapper that sees to that costs too much where nothing is compiled."""
    if torch.compiler.is_compiling():
        torch.compiler.disable(call)(*args)
    else:
        call(*args)


class _RecordedReplacement:
    """Another pack's replacement of a cross-attention (IP-Adapter and its like), recorded before it does its work.

    Such replacements call attention in ways an override does not see. Everything else about them shows through.
    """

    def __init__(self, session: RecordingSession, replacement: Any) -> None:
        self._session, self._replacement = session, replacement

    def __call__(self, q: Any, k: Any, v: Any, extra_options: Any, *args: Any, **kwargs: Any) -> Any:
        _safely(
            self._session, lambda: _outside_compile(self._session.on_attention, (q, k, v, int(extra_options["n_heads"])), {})
        )
        reason = "another node computes the cross-attention itself (IP-Adapter and its like do)"
        _safely(self._session, lambda: _outside_compile(self._session.leave_out, reason))
        return self._replacement(q, k, v, extra_options, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._replacement, name)
        if name != "to":
            return found

        def to(*args: Any, **kwargs: Any) -> _RecordedReplacement:  # ComfyUI puts what `to` gives out in our place
            return _RecordedReplacement(self._session, found(*args, **kwargs))

        return to


_REQUIRED = object()


def _told(error: Exception) -> str:
    """The sentence for a recording that stopped; what was not foreseen has its traceback in the log."""
    if not isinstance(error, DaamLensError):
        logger.warning("DAAM Lens: the recording stopped", exc_info=error)
    return recording_failure(error)


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any = _REQUIRED) -> Any:
    """An argument of one of ComfyUI's calls, by position or by name; the call itself is handed on as it came."""
    if len(args) > index:
        return args[index]
    if name in kwargs:
        return kwargs[name]
    if default is _REQUIRED:
        raise NothingRecorded(f"ComfyUI called its model without `{name}`, which DAAM Lens reads")
    return default


def _safely(session: RecordingSession, call: Callable[..., None], *args: Any) -> None:
    try:
        call(*args)
    except Exception as error:
        session.fail(error)
