"""Hooks inside a UNet: on a spatial transformer for its grid, on an attention layer for its queries and keys."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..types import Grid
from . import compile_op as compiled
from .forward_wrapper import ForwardWrapper, OnForward, wrap_forward
from .projection_wrapper import GridWrapper, Note, ProjectionWrapper


class GridHook:
    """Reads from one spatial transformer's input the true (h, w), which no square root of n can tell."""

    def __init__(self, dispatcher: compiled.Dispatcher, owner: nn.Module) -> None:
        self.dispatcher, self.owner = dispatcher, owner
        self._wrapper: GridWrapper | None = None
        self._grid: Grid = (0, 0)

    @property
    def grid(self) -> Grid:
        """(h, w) of the owner's last call."""
        return self._grid if self._wrapper is None else self._wrapper.grid

    def attach(self, by_hook: bool) -> ForwardWrapper | RemovableHandle:
        """Put it on the spatial transformer: as a hook where asked for, or where others' hooks may change its input."""
        if by_hook or self.owner._forward_hooks or self.owner._forward_pre_hooks:
            self._wrapper = None
            return self.owner.register_forward_pre_hook(self._on_input, with_kwargs=True)
        self._wrapper = GridWrapper(self.owner, self.dispatcher)
        return self._wrapper

    def _on_input(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A compiled graph is traced with a hook that always reads: its operator asks for the thread.
        if not compiled.is_compiling() and self.dispatcher.thread != get_ident():
            return
        hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        if isinstance(hidden, Tensor) and hidden.dim() == 4:
            self._grid = (hidden.shape[2], hidden.shape[3])


class QKHook:
    """Hooks on one attention layer's projections: pairs the queries with the keys of the same call, whichever come first.

    Attributes:
        is_cross: whether its keys were text when it last attended, None before that.
        key_weights: the parameters of `to_k` where that is a linear layer and nothing else makes keys, so that the same text
            gives the same keys; else None.
        q, k: what it gave out in this forward while the other has not come.
        can_note: whether it has one projection of each, and both may be noted: nobody writes into what the first of them gave
            out before the other comes, as processors do that scale their queries in place.
    """

    def __init__(self, grid_hook: GridHook, attn: Any, index: int, op: compiled.HookOp | None) -> None:
        self.attn, self.index, self.grid_hook = attn, index, grid_hook
        self.is_cross: bool | None = None
        self.can_note = False
        self._dispatcher, self._op = grid_hook.dispatcher, op
        self.q: Tensor | None = None
        self.k: Tensor | None = None
        self._source: Any = None
        self._version = 0
        self.key_weights: dict[str, Tensor | None] | None = None
        self._wrappers: list[ProjectionWrapper] = []

    def projections(self) -> list[tuple[nn.Module, str, OnForward]]:
        """(owner, name, hook) of each projection that the layer has now.

        A layer whose projections were fused keeps the single ones, the fused ones stay when they are taken apart again, and
        Custom Diffusion's processors bring their own, so all are listened to: only those that are called give anything.
        """
        every: list[tuple[Any, str, OnForward]] = [
            (self.attn, "to_q", self.on_query),
            (self.attn, "to_k", self.on_key),
            (self.attn, "to_kv", self.on_fused_key_value),
            (self.attn, "to_qkv", self.on_fused),
        ]
        processor = getattr(self.attn, "processor", None)
        if isinstance(processor, nn.Module):
            every += [(processor, "to_q_custom_diffusion", self.on_query), (processor, "to_k_custom_diffusion", self.on_key)]
        return [entry for entry in every if isinstance(getattr(entry[0], entry[1], None), nn.Module)]

    def attach(self) -> list[ForwardWrapper | RemovableHandle]:
        """Put hooks on the layer's projections as they are now.

        A compiled graph has its hooks baked in, and knows nothing of a `forward` set later.
        """
        self.key_weights = self._plain_key_weights()
        handles = [self._wrap(getattr(owner, name), name, on_forward) for owner, name, on_forward in self.projections()]
        self._wrappers = [handle for handle in handles if isinstance(handle, ProjectionWrapper)]
        self.can_note = len(handles) == len(self._wrappers) == 2
        return handles

    def _wrap(self, projection: nn.Module, name: str, on_forward: OnForward) -> ForwardWrapper | RemovableHandle:
        if self._op is not None:
            return wrap_forward(projection, on_forward, by_hook=True)
        if projection._forward_hooks:
            return projection.register_forward_hook(
                lambda module, args, kwargs, output: on_forward(module, args or tuple(kwargs.values()), output),
                with_kwargs=True,
            )
        return ProjectionWrapper(projection, on_forward, self._dispatcher, self.index, name == "to_k")

    def set_mode(self, mode: int) -> None:
        """What becomes from now on of what the layer's projections give out, see `ProjectionWrapper`."""
        for wrapper in self._wrappers:
            if wrapper.attached:
                wrapper.mode = mode

    def _plain_key_weights(self) -> dict[str, Tensor | None] | None:
        if len(self.projections()) != 2:
            return None
        layer = getattr(self.attn, "to_k", None)
        if type(layer) is not nn.Linear or "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks:
            return None
        # A WebUI may put a function of its own in the place of that of all linear layers.
        if nn.Linear.forward.__module__ != nn.Linear.__module__ or layer.bias is not None or layer.weight.is_inference():
            return None
        return layer._parameters

    def forget(self) -> None:
        """Let go of queries or keys without a partner."""
        self.q = self.k = self._source = None

    def keep(self, note: Note) -> None:
        """Queries or keys whose partner did not come in this forward."""
        _, is_key, source, output, _ = note
        if is_key:
            self.k = source if output is None else output
        else:
            self.q = output

    def on_query(self, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._dispatcher.thread != get_ident() if self._op is None else self._skips():
            return
        if not isinstance(output, Tensor):  # such a layer is named as one whose projections are not its own
            return
        source = args[0] if args else None
        k = self.k
        if k is None:
            self.q, self._source, self._version = output, source, self._version_of(output)
        else:
            self._look_for_writes(k)
            self._pair(output, k, source, self._source)

    def on_key(self, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._dispatcher.thread != get_ident() if self._op is None else self._skips():
            return
        if not isinstance(output, Tensor):
            return
        source = args[0] if args else None
        q = self.q
        if q is None:
            self.k, self._source, self._version = output, source, self._version_of(output)
        else:
            self._look_for_writes(q)
            self._pair(q, output, self._source, source)

    def on_fused_key_value(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            self.on_key(module, args, output.chunk(2, dim=-1)[0])

    def on_fused(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        q, k, _ = output.chunk(3, dim=-1)
        self.on_query(module, args, q)
        self.on_key(module, args, k)

    def keys_of(self, states: Tensor) -> Tensor:
        """What the layer's own projection makes of a text `[columns, dim]`: `[columns, heads * d]`."""
        attn, text = self.attn, states[None]
        if getattr(attn, "norm_cross", None):
            text = attn.norm_encoder_hidden_states(text)
        if getattr(attn, "fused_projections", False) and isinstance(getattr(attn, "to_kv", None), nn.Module):
            keys: Tensor = attn.to_kv(text).chunk(2, dim=-1)[0]
        else:
            keys = attn.to_k(text)
        return keys[0].detach()

    def _version_of(self, output: Tensor) -> int:
        """How often it was written to, 0 where nobody counts or the compiler looks."""
        return 0 if self._op is not None or output.is_inference() else output._version

    def _look_for_writes(self, first: Tensor) -> None:
        if self._version_of(first) != self._version:
            self.can_note = False

    def _skips(self) -> bool:
        """Whether this forward is not the one that is recorded. What is being compiled is told by its operator later."""
        if compiled.is_compiling():
            return False
        return self._dispatcher.thread != get_ident()

    def _pair(self, q: Tensor, k: Tensor, source: Any, context: Any) -> None:
        """Queries and keys of one call, and what they were made of: different inputs where the keys are text."""
        cross = source is None or source is not context
        self.q = self.k = self._source = None
        if self._op is not None and compiled.is_compiling():
            self._op.call(q, k, self.index, self.grid_hook.grid, cross)
        else:
            self.is_cross = cross
            dispatcher = self._dispatcher
            of_context = self.key_weights is not None and context is dispatcher.context
            dispatcher.dispatch(self.index, self.grid_hook.grid, q, k, cross, of_context)
