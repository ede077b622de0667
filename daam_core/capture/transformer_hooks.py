"""Hooks on one transformer of diffusers: every attention call of it, with the layer that makes it, and nothing changed.

The attention of diffusers' transformers goes through two kinds of function: the backends of `dispatch_attention_fn`, which
are looked up in a dictionary at every call, and `torch.nn.functional.scaled_dot_product_attention`. Both are wrapped while a
trace needs it. What arrives there is what the model attends with: norms, positions, fused projections, LoRA, references,
masks and grouped keys are all in it. A wrapper passes its arguments on untouched, and does nothing else unless the calling
thread is inside a traced model.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from . import transformer_ops
from .attention_call import AttentionCall, from_dispatch, from_sdpa
from .call_arguments import CallArguments
from .compile_op import is_compiled, reset_graphs
from .forward_wrapper import AroundWrapper
from .lse_capture import LseCapture
from .shared_wrapper import SharedWrapper
from .transformer_ops import OPERATORS

_SMALL = 2**17
"""Up to so many scores the whole softmax is cheaper than watching the kernel for its log-sum-exp."""
Read = Callable[[Sequence[Any], Mapping[str, Any]], AttentionCall]


class AttentionCallbacks(Protocol):
    """What `TransformerHooks` calls while a model runs. An exception of any of these ends the recording, not the picture."""

    def begin(self, arguments: Mapping[str, Any]) -> bool:
        """The model was called with these arguments, by name; gives whether anything of this call is of interest."""

    def wants(self, layer: str) -> bool:
        """Whether calls of this layer are of interest."""

    def expects(self, layer: str) -> bool:
        """Whether this wanted layer is to be read in the call that runs; else neither of the next two is called for it."""

    def attention(self, layer: str, number: int, call: AttentionCall) -> None:
        """A wanted layer attended, for the `number`th time in this call, counted from 0."""

    def unread(self, layer: str, processor: str) -> None:
        """A wanted layer is done, and no attention call of it was read; `processor` is the class of its processor."""

    def end(self) -> None:
        """The model is done."""

    def failed(self, error: Exception) -> None:
        """One of the others raised, or an attention call could not be read; nothing else is called until the next `begin`."""


@dataclass(eq=False)
class _Scope:
    """One running call of a traced model in one thread.

    Attributes:
        layers: the layers it is inside of, outermost first, each with the number of its attention calls so far.
    """

    hooks: TransformerHooks
    model: nn.Module
    layers: list[list[Any]] = field(default_factory=list)
    alive: bool = True


class _Thread(threading.local):
    """What runs in this thread: the calls of traced models, innermost last, and how deep it is inside a wrapped function."""

    def __init__(self) -> None:
        self.scopes: list[_Scope] = []
        self.inside = 0


_THREAD = _Thread()


class TransformerHooks:
    """Calls back for everything that one transformer attends to; a context manager that owns everything it put in.

    Args:
        model: a transformer of diffusers.
        callbacks: what is called.
        outputs: whether each call is handed on with its values and what it gave out; not of a compiled model.
    """

    def __init__(self, model: nn.Module, callbacks: AttentionCallbacks, outputs: bool = False) -> None:
        self._outer = model
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self._number = transformer_ops.number_of(self) if is_compiled(model) else None
        self._callbacks, self.outputs = callbacks, outputs
        self._arguments = CallArguments(inspect.signature(type(self.model).forward))
        self._handles: list[RemovableHandle | SharedWrapper | AroundWrapper | _AroundGraph] = []

    def __enter__(self) -> TransformerHooks:
        try:
            if self._number is not None:
                transformer_ops.prepare()
                reset_graphs()  # they hold the hooks of when they were made
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in reversed(self._handles):
            handle.remove()
        self._handles = []
        if self._number is not None:
            reset_graphs()

    def __reduce__(self) -> tuple[Any, ...]:
        """A model that is copied or written while it is recorded takes its hooks along: the copy's do nothing."""
        return _detached, ()

    def _attach(self) -> None:
        add = self._handles.append
        for name, module in self.model.named_modules():
            if getattr(module, "processor", None) is not None and self._callbacks.wants(name):
                if self._number is None:  # hooks take PyTorch's slow path through a module, some 8 microseconds a layer
                    enter, leave = functools.partial(self.enter_layer, name), functools.partial(self.leave_layer, name)
                    add(AroundWrapper(module, enter, leave))
                    continue
                add(module.register_forward_pre_hook(functools.partial(self._enter_hook, name)))
                add(module.register_forward_hook(functools.partial(self._leave_hook, name), always_call=True))
        if getattr(self._outer, "_compiled_call_impl", None) is not None:
            add(_AroundGraph(self._outer, self._begin, self._end))
        else:
            add(self._outer.register_forward_pre_hook(self._begin, with_kwargs=True))
            add(self._outer.register_forward_hook(self._end, always_call=True))
        add(SharedWrapper(torch.nn.functional, "scaled_dot_product_attention", functools.partial(_wrap_attention, from_sdpa)))
        for backends in _backend_tables():
            for name in list(backends):
                add(SharedWrapper(backends, name, functools.partial(_wrap_attention, _from_backend)))

    # -- the model ------------------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._handles:
            return  # a copy's
        scope = _Scope(self, self.model)
        if not _THREAD.scopes:
            _THREAD.inside = 0  # a graph that raised inside an attention could not count back
        _THREAD.scopes.append(scope)
        try:
            scope.alive = self._callbacks.begin(self._arguments.of(self.model, args, kwargs))
        except Exception as error:
            self._fail(scope, error)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        scope = next((scope for scope in reversed(_THREAD.scopes) if scope.hooks is self), None)
        if scope is None:
            return
        _THREAD.scopes.remove(scope)
        # `always_call` also calls where the model raised: then it gave nothing out.
        if scope.alive and output is not None:
            self._guard(scope, self._callbacks.end)

    # -- its layers -----------------------------------------------------------------------------------------------

    def _scope(self) -> _Scope | None:
        """This model's own running call, if it is the innermost model that runs."""
        scopes = _THREAD.scopes
        for scope in reversed(scopes):
            if scope.model is not scopes[-1].model:
                return None
            if scope.hooks is self:
                return scope if scope.alive else None
        return None

    def _enter_hook(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            OPERATORS["layer"](OPERATORS["mark"], self._number, name, True)
        else:
            self.enter_layer(name)

    def _leave_hook(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            OPERATORS["layer"](OPERATORS["mark"], self._number, name, False)
        elif output is not None:  # `always_call` also calls where the module raised
            self.leave_layer(name)

    def enter_layer(self, name: str) -> None:
        """The attention of this name begins."""
        if (scope := self._scope()) is not None and self._callbacks.expects(name):
            scope.layers.append([name, 0])

    def leave_layer(self, name: str) -> None:
        """It ends."""
        if (scope := self._scope()) is None or not scope.layers or scope.layers[-1][0] != name:
            return
        _, calls = scope.layers.pop()
        if calls == 0:
            processor = type(getattr(self.model.get_submodule(name), "processor", None)).__name__
            self._guard(scope, functools.partial(self._callbacks.unread, name, processor))

    def _guard(self, scope: _Scope, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:
            self._fail(scope, error)

    def _fail(self, scope: _Scope, error: Exception) -> None:
        scope.alive = False
        self._callbacks.failed(error)


def _detached() -> TransformerHooks:
    hooks = object.__new__(TransformerHooks)
    hooks._handles, hooks._number = [], None
    return hooks


class _AroundGraph:
    """Hooks around a module that `module.compile()` has compiled in place: its own hooks would be inside the graph."""

    def __init__(self, module: nn.Module, begin: Callable[..., None], end: Callable[..., None]) -> None:
        self._module = module
        self._below: Callable[..., Any] = module._compiled_call_impl  # type: ignore[assignment]

        def call(*args: Any, **kwargs: Any) -> Any:
            begin(module, args, kwargs)
            output = None
            try:
                output = self._below(*args, **kwargs)
            finally:
                end(module, args, output)
            return output

        self._call = module._compiled_call_impl = call

    def remove(self) -> None:
        """Put the compiled call back, unless it was compiled anew since."""
        if self._module._compiled_call_impl is self._call:
            self._module._compiled_call_impl = self._below


def _from_backend(args: Sequence[Any], kwargs: Mapping[str, Any]) -> AttentionCall:
    return from_dispatch({**kwargs, **dict(zip(("query", "key", "value"), args, strict=False))} if args else kwargs)


def _backend_tables() -> list[dict[Any, Any]]:
    """The dictionaries that hold the attention kernels of diffusers by name; none in releases before 0.35."""
    try:
        from diffusers.models import attention_dispatch
    except ImportError:
        return []
    return [attention_dispatch._AttentionBackendRegistry._backends]


def _active_scopes() -> list[_Scope]:
    """The running calls in this thread that are inside a layer whose attention they want."""
    thread = _THREAD
    scopes = thread.scopes
    if not scopes or thread.inside:
        return []
    if len(scopes) == 1:
        return scopes.copy() if scopes[0].alive and scopes[0].layers else []
    model = scopes[-1].model
    return [scope for scope in scopes if scope.model is model and scope.alive and scope.layers]


def _wrap_attention(read: Read, below: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function that hands its arguments to the running calls, and calls `below` with the same."""
    backend = read is _from_backend

    @functools.wraps(below)
    def attention(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _compiled(backend, below, args, kwargs)
        scopes = _active_scopes()
        if not scopes:
            return below(*args, **kwargs)
        call = error = None
        try:
            call = read(args, kwargs)
        except Exception as raised:
            error = raised
        _THREAD.inside += 1
        try:
            if call is None or call.scores <= _SMALL:
                output = below(*args, **kwargs)
            else:
                capture = LseCapture()
                with capture:
                    output = below(*args, **kwargs)
                call = call.with_lse(capture.of(call))
        finally:
            _THREAD.inside -= 1
        if call is not None and any(scope.hooks.outputs for scope in scopes):
            # One that cannot be read is left out: words are read all the same.
            with contextlib.suppress(UnsupportedModel):
                v = args[2] if len(args) > 2 else kwargs.get("value")
                call = call.with_output(v, output, heads_last=backend)
        _dispatch_all(scopes, call, error)
        return output

    return attention


def _dispatch_all(scopes: Sequence[_Scope], call: AttentionCall | None, error: Exception | None) -> None:
    for scope in scopes:
        if call is None:
            scope.hooks._fail(scope, error or RuntimeError("an attention call could not be read"))
            continue
        layer = scope.layers[-1]
        name, number = layer
        layer[1] += 1
        try:
            scope.hooks._callbacks.attention(name, number, call)
        except Exception as raised:
            scope.hooks._fail(scope, raised)


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
    scopes = _active_scopes()
    if not scopes:
        return
    call = error = None
    try:
        call = from_sdpa((q, k), {"attn_mask": mask, "scale": scale, "is_causal": causal})
    except Exception as raised:
        error = raised
    _dispatch_all(scopes, call, error)


def _depth_in_graph(by: int) -> None:
    _THREAD.inside += by


transformer_ops.connect(_attention_in_graph, _depth_in_graph)
