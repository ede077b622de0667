"""What listens inside a UNet: at a spatial transformer for its grid, at an attention layer for its queries and keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..types import Grid
from . import compile_op as compiled
from .forward_wrapper import Overheard, overhear


class GridEar:
    """Listens at one spatial transformer: the true (h, w), which no square root of n can tell."""

    def __init__(self, tap: compiled.Listener, owner: nn.Module) -> None:
        self.tap, self.owner = tap, owner
        self.grid: Grid = (0, 0)

    def see_grid(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        if hidden is not None and hidden.dim() == 4:
            self.grid = (hidden.shape[2], hidden.shape[3])


class LayerEar:
    """Listens at one attention layer: pairs the queries with the keys of the same call."""

    def __init__(self, ear: GridEar, attn: Any, index: int, ticket: compiled.Ticket | None, at_itself: bool) -> None:
        self.at_itself = at_itself
        self.key_name = "to_kv" if getattr(attn, "fused_projections", False) and hasattr(attn, "to_kv") else "to_k"
        self._ear, self._attn, self._index, self._ticket = ear, attn, index, ticket
        self._q: Tensor | None = None
        self._source: Any = None

    def attach(self) -> list[Overheard | RemovableHandle]:
        """Listen at the layer's projections as they are now.

        A compiled graph has its hooks baked in, and knows nothing of a `forward` set later.
        """
        see_key = self.see_fused if self.key_name == "to_kv" else self.see_key
        pairs = ((self._attn.to_q, self.see_query), (getattr(self._attn, self.key_name), see_key))
        return [overhear(module, see, self._ticket is not None) for module, see in pairs]

    def see_query(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._q, self._source = output, args[0] if args else None

    def see_fused(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.see_key(module, args, output.chunk(2, dim=-1)[0])

    def see_key(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        q, source = self._q, self._source
        self._q = self._source = None
        if q is None:
            return
        context = args[0] if args else None
        cross = context is None or context is not source
        if self._ticket is not None and torch.compiler.is_compiling():
            self._ticket.hand_in(q, output, self._index, self._ear.grid, cross)
        else:
            self._ear.tap.emit(self._index, self._ear.grid, q, output, cross)
