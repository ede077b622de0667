"""Hooks inside a UNet: on a spatial transformer for its grid, on an attention layer for its queries and keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..types import Grid
from . import compile_op as compiled
from .forward_wrapper import ForwardWrapper, wrap_forward


class GridHook:
    """Reads from one spatial transformer's input the true (h, w), which no square root of n can tell."""

    def __init__(self, dispatcher: compiled.Dispatcher, owner: nn.Module) -> None:
        self.dispatcher, self.owner = dispatcher, owner
        self.grid: Grid = (0, 0)

    def on_input(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        if hidden is not None and hidden.dim() == 4:
            self.grid = (hidden.shape[2], hidden.shape[3])


class QKHook:
    """Hooks on one attention layer's projections: pairs the queries with the keys of the same call."""

    def __init__(self, grid_hook: GridHook, attn: Any, index: int, op: compiled.HookOp | None, is_self: bool) -> None:
        self.is_self = is_self
        self.key_name = "to_kv" if getattr(attn, "fused_projections", False) and hasattr(attn, "to_kv") else "to_k"
        self._grid_hook, self._attn, self._index, self._op = grid_hook, attn, index, op
        self._q: Tensor | None = None
        self._source: Any = None

    def attach(self) -> list[ForwardWrapper | RemovableHandle]:
        """Put hooks on the layer's projections as they are now.

        A compiled graph has its hooks baked in, and knows nothing of a `forward` set later.
        """
        on_key = self.on_fused_key_value if self.key_name == "to_kv" else self.on_key
        pairs = ((self._attn.to_q, self.on_query), (getattr(self._attn, self.key_name), on_key))
        return [wrap_forward(module, on_forward, self._op is not None) for module, on_forward in pairs]

    def on_query(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._q, self._source = output, args[0] if args else None

    def on_fused_key_value(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.on_key(module, args, output.chunk(2, dim=-1)[0])

    def on_key(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        q, source = self._q, self._source
        self._q = self._source = None
        if q is None:
            return
        context = args[0] if args else None
        cross = context is None or context is not source
        if self._op is not None and torch.compiler.is_compiling():
            self._op.call(q, output, self._index, self._grid_hook.grid, cross)
        else:
            self._grid_hook.dispatcher.dispatch(self._index, self._grid_hook.grid, q, output, cross)
