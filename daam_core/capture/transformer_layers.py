"""The attention layers of a traced model, wrapped so that a thread knows which one it is inside of."""

from __future__ import annotations

from typing import Any

from torch import nn

from .forward_wrapper import ForwardWrapper, nothing
from .transformer_scopes import THREAD, AttentionCallbacks


class LayerWrapper(ForwardWrapper):
    """Notes while a layer's forward runs that the thread is inside of it, if its model's call is recorded; asks afterwards
    whether an attention of it was read, unless it raised.

    Args:
        module: the layer.
        name: its name.
        owner: whose calls of the model these are, see `Scope`.
        callbacks: what is called.
    """

    def __init__(self, module: nn.Module, name: str, owner: object, callbacks: AttentionCallbacks) -> None:
        super().__init__(module, nothing)
        self._name, self._owner, self._callbacks = name, owner, callbacks

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        # Each layer of each step comes here, so everything is in one function.
        module, below, owner = self._module, self._below, self._owner
        running = THREAD.running
        scopes = running.scopes
        scope = scopes[0] if len(scopes) == 1 else running.of(owner)
        if (
            scope is None
            or scope.owner is not owner
            or not (scope.alive and self._attached)
            or not self._callbacks.expects(self._name)
        ):
            return type(module).forward(module, *args, **kwargs) if below is None else below(*args, **kwargs)
        layers, layer = scope.layers, [self._name, 0]
        layers.append(layer)
        output = type(module).forward(module, *args, **kwargs) if below is None else below(*args, **kwargs)
        if layers and layers[-1] is layer and scope.alive:
            layers.pop()
            if not layer[1]:
                scope.guard(self._callbacks.unread, self._name, type(getattr(module, "processor", None)).__name__)
        return output
