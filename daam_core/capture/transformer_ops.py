"""Opaque operators by which hooks of a transformer work inside a graph of `torch.compile`, so that no graph breaks."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UnsupportedModel


class LayerHooks(Protocol):
    """The hooks of one transformer."""

    def enter_layer(self, name: str) -> None:
        """The layer of this name begins."""

    def leave_layer(self, name: str) -> None:
        """It ends."""


# Operators receive tensors and numbers only, so a graph names hooks and layers by numbers. Weak: a graph that outlives its
# trace finds none and does nothing.
_HOOKS: weakref.WeakValueDictionary[int, LayerHooks] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()
_ON_ATTENTION: list[Callable[[Tensor, Tensor, Tensor | None, float | None, bool], None]] = []
_ON_DEPTH: list[Callable[[int], None]] = []


def number_of(hooks: LayerHooks) -> int:
    """The number that graphs know these hooks by."""
    number = next(_NUMBERS)
    _HOOKS[number] = hooks
    return number


def connect(
    attention: Callable[[Tensor, Tensor, Tensor | None, float | None, bool], None], depth: Callable[[int], None]
) -> None:
    """Set what is called for an attention (q, k, mask, scale, causal or not), and where a wrapped function begins or ends."""
    _ON_ATTENTION[:], _ON_DEPTH[:] = [attention], [depth]


OPERATORS: dict[str, Any] = {}
"""By name, once `prepare` was called; and "mark", the tensor whose (pretended) change keeps the compiler from dropping them,
and in order. A graph reads them here: it cannot read a cache."""


def prepare() -> None:
    """Make the operators, the first time.

    Raises:
        UnsupportedModel: hosts with PyTorch before 2.4 have no way to make one.
    """
    if OPERATORS:
        return
    if not hasattr(torch.library, "custom_op"):
        raise UnsupportedModel(
            f"Recording a compiled transformer needs PyTorch 2.4 or later, and this is {torch.__version__}. "
            "Record without torch.compile."
        )

    def layer(mark: Tensor, number: int, name: str, enter: bool) -> None:
        hooks = _HOOKS.get(number)
        if hooks is not None:
            (hooks.enter_layer if enter else hooks.leave_layer)(name)

    def attention(
        mark: Tensor, q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None, causal: bool, backend: bool
    ) -> None:
        if backend:
            q, k = q.transpose(1, 2), k.transpose(1, 2)
            if mask is not None and mask.dim() == 2 and mask.shape == (q.shape[0], k.shape[2]):
                mask = mask[:, None, None]
        for on_attention in _ON_ATTENTION:
            on_attention(q, k, mask, scale, causal)

    def inside(mark: Tensor, by: int) -> None:
        for on_depth in _ON_DEPTH:
            on_depth(by)

    # Postponed annotations are strings; an operator's schema is read from real types.
    layer.__annotations__ = {"mark": Tensor, "number": int, "name": str, "enter": bool, "return": None}
    attention.__annotations__ = {
        "mark": Tensor, "q": Tensor, "k": Tensor, "mask": Tensor | None, "scale": float | None, "causal": bool,
        "backend": bool, "return": None,
    }  # fmt: skip
    inside.__annotations__ = {"mark": Tensor, "by": int, "return": None}
    for function in (layer, attention, inside):
        name = f"daam_lens::transformer_{function.__name__}"
        OPERATORS[function.__name__] = torch.library.custom_op(name, function, mutates_args=("mark",))
        OPERATORS[function.__name__].register_fake(lambda *_: None)
    OPERATORS["mark"] = torch.zeros(1)
