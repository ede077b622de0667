"""Hooks on one transformer of diffusers: every attention call of it, with the layer that makes it, and nothing changed.

The attention of diffusers' transformers goes through two kinds of function: the backends of `dispatch_attention_fn`, which
are looked up in a dictionary at every call, and `torch.nn.functional.scaled_dot_product_attention`. Both are wrapped while a
trace needs it. What arrives there is what the model attends with: norms, positions, fused projections, LoRA, references,
masks and grouped keys are all in it. A wrapper passes its arguments on untouched, and does nothing else unless the calling
thread is inside a traced model.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from . import transformer_ops
from .call_arguments import CallArguments
from .compile_op import is_compiled, reset_graphs
from .shared_wrapper import SharedWrapper
from .transformer_attention import wrap_attention_functions
from .transformer_layers import LayerWrapper
from .transformer_ops import OPERATORS
from .transformer_scopes import THREAD, AttentionCallbacks, Scope


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
        self._handles: list[RemovableHandle | SharedWrapper | LayerWrapper | _AroundGraph] = []

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
        THREAD.running.drop(self)
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
                    add(LayerWrapper(module, name, self, self._callbacks))
                    continue
                add(module.register_forward_pre_hook(functools.partial(self._enter_hook, name)))
                add(module.register_forward_hook(functools.partial(self._leave_hook, name), always_call=True))
        if getattr(self._outer, "_compiled_call_impl", None) is not None:
            add(_AroundGraph(self._outer, self._begin, self._end))
        else:
            add(self._outer.register_forward_pre_hook(self._begin, with_kwargs=True))
            add(self._outer.register_forward_hook(self._end, always_call=True))
        self._handles += wrap_attention_functions()

    # -- the model ------------------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._handles:
            return  # a copy's
        scope, running = Scope(self, self.model, self._callbacks, self.outputs), THREAD.running
        running.drop(self)
        if not running.scopes:
            running.inside = 0  # a graph that raised inside an attention could not count back
        running.scopes.append(scope)
        try:
            scope.alive = self._callbacks.begin(self._arguments.of(self.model, args, kwargs))
        except Exception as error:
            scope.fail(error)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        scopes = THREAD.running.scopes
        scope = next((scope for scope in reversed(scopes) if scope.owner is self), None)
        if scope is None:
            return
        scopes.remove(scope)
        # `always_call` also calls where the model raised: then it gave nothing out.
        if scope.alive and output is not None:
            scope.guard(self._callbacks.end)

    # -- its layers -----------------------------------------------------------------------------------------------

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
        if (scope := THREAD.running.of(self)) is not None and self._callbacks.expects(name):
            scope.layers.append([name, 0])

    def leave_layer(self, name: str) -> None:
        """It ends."""
        if (scope := THREAD.running.of(self)) is None or not scope.layers or scope.layers[-1][0] != name:
            return
        _, calls = scope.layers.pop()
        if calls == 0:
            processor = type(getattr(self.model.get_submodule(name), "processor", None)).__name__
            scope.guard(self._callbacks.unread, name, processor)


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
