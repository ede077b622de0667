"""Which calls of traced models run in a thread, and which attention layers each is inside of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from .attention_call import AttentionCall


class AttentionCallbacks(Protocol):
    """What `TransformerHooks` calls while a model runs. An exception of any of these ends the recording, not the picture."""

    def begin(self, arguments: Mapping[str, Any]) -> bool:
        """The model was called with these arguments, by name; gives whether anything of this call is of interest."""

    def wants(self, layer: str) -> bool:
        """Whether calls of this layer are of interest."""

    def expects(self, layer: str) -> bool:
        """Whether this wanted layer is to be read in the call that runs; else neither of the next two is called for it."""

    def hold(self, layer: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> bool:
        """Whether a call of an attention function by a wanted layer is taken as it is, to be read when the model is done; else
        `attention` is called for it. `backend`: whether the function is a backend of diffusers, else it is PyTorch's own."""

    def attention(self, layer: str, number: int, call: AttentionCall) -> None:
        """A wanted layer attended, for the `number`th time in this call, counted from 0."""

    def unread(self, layer: str, processor: str) -> None:
        """A wanted layer is done, and no attention call of it was read; `processor` is the class of its processor."""

    def end(self) -> None:
        """The model is done."""

    def failed(self, error: Exception) -> None:
        """One of the others raised, or an attention call could not be read; nothing else is called until the next `begin`."""


@dataclass(eq=False, slots=True)
class Scope:
    """One running call of a traced model in one thread.

    Attributes:
        owner: whose hooks made it.
        model: the model that runs.
        callbacks: what is called.
        outputs: whether each call is handed on with its values and what it gave out.
        layers: the layers it is inside of, outermost first, each with the number of its attention calls so far.
        alive: whether it is still recorded.
    """

    owner: object
    model: nn.Module
    callbacks: AttentionCallbacks
    outputs: bool
    layers: list[list[Any]] = field(default_factory=list)
    alive: bool = True

    def guard(self, what: Callable[..., None], *args: Any) -> None:
        """Call what must not disturb the model."""
        try:
            what(*args)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Nothing more of this call is recorded."""
        self.alive = False
        self.callbacks.failed(error)

    def holds(self, args: Sequence[Any], kwargs: Mapping[str, Any], backend: bool) -> bool:
        """Whether a call of an attention function by the innermost layer is taken as it is."""
        if not self.layers or not self.alive:
            return False
        layer = self.layers[-1]
        try:
            if not self.callbacks.hold(layer[0], args, kwargs, backend):
                return False
        except Exception as raised:
            self.fail(raised)
        layer[1] += 1
        return True


class Running:
    """What runs in one thread: the calls of traced models, innermost last, and how deep it is inside a wrapped function."""

    __slots__ = ("inside", "scopes")

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.inside = 0

    def drop(self, owner: object) -> None:
        """Forget calls of this owner that were broken off: PyTorch calls no hook behind a forward that an interrupt left."""
        if any(scope.owner is owner for scope in self.scopes):
            self.scopes = [scope for scope in self.scopes if scope.owner is not owner]

    def of(self, owner: object) -> Scope | None:
        """A model's own running call, if it is the innermost model that runs and is still recorded."""
        scopes = self.scopes
        for scope in reversed(scopes):
            if scope.model is not scopes[-1].model:
                return None
            if scope.owner is owner:
                return scope if scope.alive else None
        return None

    def attending(self) -> list[Scope]:
        """The running calls that are inside a layer whose attention they want."""
        scopes = self.scopes
        if not scopes or self.inside:
            return []
        model = scopes[-1].model
        return [scope for scope in scopes if scope.model is model and scope.alive and scope.layers]


class _Thread(threading.local):
    def __init__(self) -> None:
        self.running = Running()


THREAD = _Thread()
"""`THREAD.running` is what runs in the thread that asks."""
