"""The functions that diffusers' transformers attend by, wrapped: a call by a layer of a traced model is handed on.

A wrapper passes its arguments on untouched, and does nothing else unless the calling thread is inside a traced model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from . import transformer_ops
from .attention_call import AttentionCall, from_dispatch, from_sdpa
from .lse_capture import LseCapture
from .shared_wrapper import SharedWrapper, aside
from .transformer_ops import OPERATORS
from .transformer_scopes import THREAD, Scope

_SMALL = 2**17
"""Up to so many scores the whole softmax is cheaper than watching the kernel for its log-sum-exp."""
Read = Callable[[Sequence[Any], Mapping[str, Any]], AttentionCall]


def wrap_attention_functions() -> list[SharedWrapper]:
    """Wrap PyTorch's attention and every backend of diffusers', until each is removed."""
    own = SharedWrapper(torch.nn.functional, "scaled_dot_product_attention", functools.partial(_wrap_attention, from_sdpa))
    wrap = functools.partial(_wrap_attention, _from_backend)
    return [own, *(SharedWrapper(backends, name, wrap) for backends in _backend_tables() for name in list(backends))]


def _from_backend(args: Sequence[Any], kwargs: Mapping[str, Any]) -> AttentionCall:
    return from_dispatch({**kwargs, **dict(zip(("query", "key", "value"), args, strict=False))} if args else kwargs)


def _backend_tables() -> list[dict[Any, Any]]:
    """The dictionaries that hold the attention kernels of diffusers by name; none in releases before 0.35."""
    try:
        from diffusers.models import attention_dispatch
    except ImportError:
        return []
    return [attention_dispatch._AttentionBackendRegistry._backends]


_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", lambda: 0)
"""How many modes (`TorchFunctionMode`) look at PyTorch's functions now, in this thread."""


def _by_its_own_name(wrapper: Callable[..., Any], below: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls PyTorch's attention while it stands under its own name.

    A mode is told which function is called, and may know it by that name: perturbed attention guidance of diffusers does, and
    would leave the attention as it is.
    """
    with aside(torch.nn.functional, "scaled_dot_product_attention", wrapper):
        return below(*args, **kwargs)


def _wrap_attention(read: Read, below: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function that hands its arguments to the running calls, and calls `below` with the same."""
    backend = read is _from_backend

    @functools.wraps(below)
    def attention(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _compiled(backend, below, args, kwargs)
        modes = _modes()
        run = below if backend or not modes else functools.partial(_by_its_own_name, attention, below)
        running = THREAD.running
        scopes = running.scopes
        if not scopes or running.inside:
            return run(*args, **kwargs)
        if len(scopes) == 1 and not modes and scopes[0].holds(args, kwargs, backend):
            running.inside += 1
            try:
                return run(*args, **kwargs)
            finally:
                running.inside -= 1
        scopes = running.attending()
        if not scopes:
            return run(*args, **kwargs)
        call = error = None
        try:
            call = read(args, kwargs)
        except Exception as raised:
            error = raised
        running.inside += 1
        try:
            if call is None or call.scores <= _SMALL:
                output = run(*args, **kwargs)
            else:
                capture = LseCapture()
                with capture:
                    output = run(*args, **kwargs)
                call = call.with_lse(capture.of(call))
        finally:
            running.inside -= 1
        v = args[2] if len(args) > 2 else kwargs.get("value")
        if modes and _is_same(output, v):
            call, error = None, _without_scores()
        if call is not None and any(scope.outputs for scope in scopes):
            # One that cannot be read is left out: words are read all the same.
            with contextlib.suppress(UnsupportedModel):
                call = call.with_output(v, output, heads_last=backend)
        _dispatch_all(scopes, call, error)
        return output

    return attention


def _is_same(output: Any, values: Any) -> bool:
    """Whether an attention gave out its values themselves."""
    if not isinstance(output, Tensor) or not isinstance(values, Tensor) or output.shape != values.shape:
        return False
    try:
        return output.data_ptr() == values.data_ptr() != 0
    except RuntimeError:  # tensors that have no memory of their own
        return False


def _without_scores() -> UnsupportedModel:
    return UnsupportedModel(
        "an attention of the model gave out its values as they are, because a guider leaves out its scores (AutoGuidance with "
        "`skip_attention_scores` does so for the negative prompt), so there is no map of it. Record without `negative=True`, "
        "or paint with another guider"
    )


def _dispatch_all(scopes: Sequence[Scope], call: AttentionCall | None, error: Exception | None) -> None:
    for scope in scopes:
        if call is None:
            scope.fail(error or RuntimeError("an attention call could not be read"))
            continue
        layer = scope.layers[-1]
        name, number = layer
        layer[1] += 1
        scope.guard(scope.callbacks.attention, name, number, call)


# -- inside the graphs of torch.compile ---------------------------------------------------------------------------------


def _compiled(backend: bool, below: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The same from inside a graph: operators call back when the graph runs."""
    q = args[0] if len(args) > 0 else kwargs["query"]
    k = args[1] if len(args) > 1 else kwargs["key"]
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    causal = args[5] if len(args) > 5 else kwargs.get("is_causal", False)
    if not OPERATORS:
        return below(*args, **kwargs)
    mark = OPERATORS["mark"]
    OPERATORS["attention"](mark, q, k, mask, kwargs.get("scale"), causal, backend)
    OPERATORS["inside"](mark, 1)
    output = below(*args, **kwargs)
    OPERATORS["inside"](mark, -1)
    return output


def _attention_in_graph(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None, causal: bool) -> None:
    scopes = THREAD.running.attending()
    if not scopes:
        return
    call = error = None
    try:
        call = from_sdpa((q, k), {"attn_mask": mask, "scale": scale, "is_causal": causal})
    except Exception as raised:
        error = raised
    _dispatch_all(scopes, call, error)


def _depth_in_graph(by: int) -> None:
    THREAD.running.inside += by


transformer_ops.connect(_attention_in_graph, _depth_in_graph)
