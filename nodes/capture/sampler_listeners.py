"""Listeners that a recording puts into the options of one run of ComfyUI's sampler.

They hand on what they are given as it came, whatever becomes of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from comfy import patcher_extension
from comfy.patcher_extension import WrappersMP

from ...daam_core.capture.lse_capture import LseCapture
from ...daam_core.errors import NothingRecorded
from .foreign_override import ForeignOverride
from .packed_latents import unpacked
from .recording_session import RecordingSession
from .replaced_attention import RecordedReplacement, unwrapped

KEY = "daam_lens"
TORCH_COMPILE_KWARGS = "torch_compile_kwargs"
"""Where ComfyUI notes in a model's options that it is compiled."""


def install(session: RecordingSession, model_options: dict[str, Any]) -> None:
    """Put the listeners into the options of one run."""
    if TORCH_COMPILE_KWARGS in model_options:
        session.leave_out(
            "of a compiled model neither the output of its attention nor its blocks are read", session.family is not None
        )
    options = model_options.setdefault("transformer_options", {})
    of_text = _attention_patch(session, own=False)
    for kind, wrapper in (
        (WrappersMP.SAMPLER_SAMPLE, _sampler(session)),
        (WrappersMP.PREDICT_NOISE, _predict(session)),
        (WrappersMP.CALC_COND_BATCH, _batch(session)),
        (WrappersMP.APPLY_MODEL, _model(session, of_text)),
    ):
        patcher_extension.add_wrapper_with_key(kind, KEY, wrapper, model_options, is_model_options=True)
    if TORCH_COMPILE_KWARGS not in model_options:  # it would be compiled with the network
        network = _network(session)
        patcher_extension.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, network, model_options, is_model_options=True)
    another = options.get("optimized_attention_override")
    session.override = None if another is None else ForeignOverride(another)
    options["optimized_attention_override"] = attention_override(session, another)
    if session.family is not None:
        return
    patches = dict(options.get("patches", {}))
    session.layer_text.same_text = not all(map(_is_columnwise, patches.get("attn2_patch") or [None]))
    patches["attn2_patch"] = [*patches.get("attn2_patch", []), of_text]
    if session.options.keep.self_attention:
        patches["attn1_patch"] = [*patches.get("attn1_patch", []), _attention_patch(session, own=True)]
    options["patches"] = patches
    replaced = options.get("patches_replace", {}).get("attn2", {})
    if replaced:
        wrapped = {block: RecordedReplacement(session, replacement) for block, replacement in replaced.items()}
        options["patches_replace"] = {**options["patches_replace"], "attn2": wrapped}


def _is_columnwise(patch: Any) -> bool:
    """Whether another patch changes each column of the text by itself, so that words stay where they are: ComfyUI's own
    hypernetworks do."""
    return type(patch).__module__.endswith("nodes_hypernetwork") or getattr(patch, "__module__", "").endswith(
        "nodes_hypernetwork"
    )


def _sampler(session: RecordingSession) -> Callable[..., Any]:
    def sampler(executor: Any, *args: Any, **kwargs: Any) -> Any:
        safely(session, session.begin_pass)
        return executor(*args, **kwargs)

    return sampler


def _predict(session: RecordingSession) -> Callable[..., Any]:
    def predict(executor: Any, *args: Any, **kwargs: Any) -> Any:
        safely(session, lambda: session.begin_step(argument(args, kwargs, 1, "timestep")))
        out = executor(*args, **kwargs)
        safely(session, session.end_step)
        return out

    return predict


def _batch(session: RecordingSession) -> Callable[..., Any]:
    def batch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        names = ("model", "conds", "x_in", "timestep")
        safely(session, lambda: session.begin_batch(*(argument(args, kwargs, i, names[i]) for i in (1, 2, 3))))
        try:
            return executor(*args, **kwargs)
        finally:
            session.end_batch()

    return batch


def _put_last(options: Any, ours: Callable[..., Any]) -> None:
    """The hooks of a conditioning bring patches of their own, which ComfyUI 0.3 puts behind a run's: what they exchange has to
    be there when ours looks at it."""
    patches = options.get("patches") if isinstance(options, dict) else None
    if not patches:
        return
    given = patches.get("attn2_patch") or [ours]
    if given[-1] is not ours and ours in given:
        options["patches"] = {**patches, "attn2_patch": [*(patch for patch in given if patch is not ours), ours]}


def _model(session: RecordingSession, of_text: Callable[..., Any]) -> Callable[..., Any]:
    def model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        def begin() -> None:
            context = argument(args, kwargs, 3, "c_crossattn", None)
            options = argument(args, kwargs, 5, "transformer_options", None)
            _put_last(options, of_text)
            more = {name: value for name, value in kwargs.items() if name not in _MODEL_ARGUMENTS}
            x = unpacked(argument(args, kwargs, 0, "x"), more.get("latent_shapes"))
            session.begin_model(x, context, options or {}, more)

        safely(session, begin)
        try:
            return executor(*args, **kwargs)
        finally:
            safely(session, session.end_model)

    return model


def _network(session: RecordingSession) -> Callable[..., Any]:
    def network(executor: Any, *args: Any, **kwargs: Any) -> Any:
        safely(session, session.begin_network)
        return executor(*args, **kwargs)

    return network


_MODEL_ARGUMENTS = ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")
"""Named arguments of ComfyUI's `apply_model`; a family of models adds its own."""


def attention_override(session: RecordingSession, below: Callable[..., Any] | None) -> Callable[..., Any]:
    """An attention override that calls what was there before, or the function itself, and only listens."""

    def unet(func: Any, *args: Any, **kwargs: Any) -> Any:
        func = unwrapped(func)
        if session.next_call is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        # before the function, which may do with its arguments what it likes
        _outside_compile(session.on_attention, args, kwargs)
        if session.override is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        out = func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        _outside_compile(safely, session, session.override.compare, out)
        return out

    def transformer(func: Any, *args: Any, **kwargs: Any) -> Any:
        func = unwrapped(func)
        if session.next_call is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        seen = None if torch.compiler.is_compiling() else LseCapture()
        with nullcontext() if seen is None else seen, nullcontext() if seen is None else session.attending():
            out = func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        _outside_compile(session.on_attention, args, kwargs, seen, out)
        return out

    def unet_with_output(func: Any, *args: Any, **kwargs: Any) -> Any:
        func = unwrapped(func)
        if session.next_call is None:
            return func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        session.on_attention(args, kwargs)
        out = func(*args, **kwargs) if below is None else below(func, *args, **kwargs)
        if session.override is not None:
            safely(session, session.override.compare, out)
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
        options = argument(args, kwargs, 3, "extra_options", None)
        if isinstance(options, Mapping):
            _outside_compile(session.set_next_call, options, own, argument(args, kwargs, 1, "context", None))
        return args[:3] if len(args) == 4 and not kwargs else {}

    return patch


def _outside_compile(call: Callable[..., None], *args: Any) -> None:
    """Call `call` where torch.compile does not look; the wrapper that sees to that costs too much where nothing is compiled."""
    if torch.compiler.is_compiling():
        torch.compiler.disable(call)(*args)
    else:
        call(*args)


@contextmanager
def compiled_apart(model_options: dict[str, Any]) -> Iterator[None]:
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


_REQUIRED = object()


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any = _REQUIRED) -> Any:
    """An argument of one of ComfyUI's calls, by position or by name; the call itself is handed on as it came."""
    if len(args) > index:
        return args[index]
    if name in kwargs:
        return kwargs[name]
    if default is _REQUIRED:
        raise NothingRecorded(f"ComfyUI called its model without `{name}`, which DAAM Lens reads")
    return default


def safely(session: RecordingSession, call: Callable[..., None], *args: Any) -> None:
    """Call what records; an exception ends the recording, never the sampler."""
    try:
        call(*args)
    except Exception as error:
        session.fail(error)
