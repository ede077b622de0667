"""How the tap listens inside `torch.compile`: one opaque operator, so that no graph breaks and `fullgraph=True` holds.

A compiled UNet bakes its hooks into the graph when it is traced and does not look at them again, so the tap makes it
forget its graphs when listening starts and when it ends.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Protocol

import torch
from torch import Tensor, nn


class Listener(Protocol):
    """Whoever takes a layer's projections: the tap."""

    def emit(self, index: int, grid: tuple[int, int], q: Tensor, k: Tensor, cross: bool) -> None:
        """Take the projections of layer `index`."""


# The operator receives tensors and numbers only, so a graph names its listener by a number. Weak: a graph that outlives
# its trace finds nobody and does nothing.
_LISTENERS: weakref.WeakValueDictionary[int, Listener] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


@torch.library.custom_op("daam_lens::attention", mutates_args=("mark",))
def _attention(
    mark: Tensor, q: Tensor, k: Tensor, number: int, index: int, height: int, width: int, cross: bool
) -> None:
    listener = _LISTENERS.get(number)
    if listener is not None:
        listener.emit(index, (height, width), q, k, cross)


@_attention.register_fake
def _(mark: Tensor, q: Tensor, k: Tensor, number: int, index: int, height: int, width: int, cross: bool) -> None:
    return None


class Ticket:
    """A listener's number and the tensor whose (pretended) change keeps the compiler from dropping the operator."""

    def __init__(self, listener: Listener) -> None:
        self._number = next(_NUMBERS)
        self._mark = torch.zeros(1)
        _LISTENERS[self._number] = listener

    def hand_in(self, q: Tensor, k: Tensor, index: int, grid: tuple[int, int], cross: bool) -> None:
        """Give one layer's projections to the listener from inside a compiled graph."""
        _attention(self._mark, q, k, self._number, index, grid[0], grid[1], cross)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module, or a module inside it, runs through `torch.compile`."""
    if hasattr(module, "_orig_mod"):
        return True
    return any(getattr(part, "_compiled_call_impl", None) is not None for part in module.modules())


def forget() -> None:
    """Drop compiled graphs, so that hooks that came or went since then are seen."""
    torch.compiler.reset()
