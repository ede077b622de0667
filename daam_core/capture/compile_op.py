"""Recording inside `torch.compile`: one opaque operator, so that no graph breaks and `fullgraph=True` holds.

A compiled UNet bakes its hooks into the graph when it is traced and does not read them again, so the
hooks make it drop its graphs when they come and when they go.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel

is_compiling: Callable[[], bool] = getattr(getattr(torch, "compiler", None), "is_compiling", lambda: False)
"""Whether a graph is being traced; WebUIs bring PyTorch that cannot tell, and under which compiled UNets are refused."""


class Dispatcher(Protocol):
    """Takes a layer's projections: `UNetAttentionHooks`.

    Attributes:
        thread: the thread whose forward is recorded now, 0 where none is.
        context: the text that this forward is given.
        notes: of what projections gave out in it, see `projection_wrapper.Note`.
        spared: the layers whose keys of that text are held already.
    """

    thread: int
    context: Tensor | None
    notes: list[tuple[int, bool, Any, Tensor | None, int]]
    spared: frozenset[int]

    def dispatch(self, index: int, grid: tuple[int, int], q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        """Take the projections of layer `index`; `of_context`: the keys are a plain projection of `context`."""


# The operator receives tensors and numbers only, so a graph names its dispatcher by a number. Weak: a graph that outlives
# its trace finds none and does nothing.
_DISPATCHERS: weakref.WeakValueDictionary[int, Dispatcher] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


@cache
def _operator() -> Callable[[Tensor, Tensor, Tensor, int, int, int, int, bool], None]:
    """The operator, made when it is first needed: hosts with PyTorch before 2.4 have no way to make one."""
    if not hasattr(torch.library, "custom_op"):
        raise UnsupportedModel(
            f"Recording a compiled UNet needs PyTorch 2.4 or later, and this is {torch.__version__}. "
            "Record without torch.compile."
        )

    def attention(mark: Tensor, q: Tensor, k: Tensor, number: int, index: int, height: int, width: int, cross: bool) -> None:
        dispatcher = _DISPATCHERS.get(number)
        if dispatcher is not None:
            dispatcher.dispatch(index, (height, width), q, k, cross)

    # Postponed annotations are strings; the operator's schema is read from real types.
    attention.__annotations__ = dict.fromkeys(("mark", "q", "k"), Tensor) | dict.fromkeys(
        ("number", "index", "height", "width"), int
    )
    attention.__annotations__ |= {"cross": bool, "return": None}
    operator = torch.library.custom_op("daam_lens::attention", attention, mutates_args=("mark",))
    operator.register_fake(lambda *_: None)
    return operator


class HookOp:
    """The operator of one dispatcher: its number, and a tensor whose (pretended) change keeps the compiler from dropping it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._hand = _operator()
        self._number = next(_NUMBERS)
        self._mark = torch.zeros(1)
        _DISPATCHERS[self._number] = dispatcher

    def call(self, q: Tensor, k: Tensor, index: int, grid: tuple[int, int], cross: bool) -> None:
        """Hand one layer's projections to the dispatcher from inside a compiled graph."""
        self._hand(self._mark, q, k, self._number, index, grid[0], grid[1], cross)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module, or a module inside it, runs through `torch.compile`."""
    if hasattr(module, "_orig_mod"):
        return True
    return any(getattr(part, "_compiled_call_impl", None) is not None for part in module.modules())


def output_is_fused(module: nn.Module) -> UnsupportedModel:
    """Why the output space of a compiled model is not recorded."""
    name = type(getattr(module, "_orig_mod", module)).__name__
    return UnsupportedModel(
        f"The output of the attention of a compiled model is not read, and {name} runs through `torch.compile`. Record without "
        "`output_space`, or without `torch.compile`."
    )


def reset_graphs() -> None:
    """Drop compiled graphs, so that hooks that came or went since then take effect."""
    torch.compiler.reset()
