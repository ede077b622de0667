"""Hooks on every cross-attention of a UNet: they read the projections and change nothing.

Works on any UNet whose spatial transformers own `transformer_blocks` with `attn1` and `attn2` (diffusers, ldm, sgm and
the WebUI forks): LoRA, hypernetworks and every attention optimisation act before, inside or after `to_q` / `to_k`, so
what these give out is what the model attends with.

The way of a query: `QKHook.on_query` keeps it until the keys of the same call come, `UNetAttentionHooks.dispatch` hands
both to the receiver, and that adds them to its accumulators.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ..types import Block, Grid, Layer
from . import compile_op as compiled
from .concepts import plain_weights
from .forward_wrapper import ForwardWrapper
from .processor_proof import ProcessorProof, needs_proof
from .projection_hooks import GridHook, QKHook
from .unet_forward import AttentionReceiver, inputs_of

_Handle = ForwardWrapper | RemovableHandle


class UNetAttentionHooks:
    """Hooks on one UNet; a context manager that owns every handle it made.

    Args:
        unet: the model, compiled or not.
        receiver: takes what it attends with; another may take its place between two forwards.
        self_attention: hooks on `attn1` too.

    Attributes:
        layers: every layer that is listened to, in the order of the forward pass.
        thread: the thread whose forward is recorded now, 0 where none is.
        context: the text that the UNet is given in it.

    Raises:
        UnsupportedModel: the model has no cross-attention in spatial transformers.
    """

    def __init__(self, unet: nn.Module, receiver: AttentionReceiver | None = None, self_attention: bool = False) -> None:
        self.layers: list[Layer] = []
        self.receiver = receiver
        self.thread = 0
        self.context: Tensor | None = None
        self.unet = unet
        self._inner: nn.Module = getattr(unet, "_orig_mod", unet)
        self._self_attention = self_attention
        self._op = compiled.HookOp(self) if compiled.is_compiled(unet) else None
        self._handles: list[RemovableHandle] = []
        self._layer_handles: list[_Handle] = []
        self._self_layers: list[tuple[QKHook, list[_Handle]]] = []
        self._self_detached = False
        self._hooks: list[tuple[GridHook, list[QKHook]]] = []
        self._projections: list[tuple[dict[str, Any], str]] = []
        self._known: list[nn.Module | None] = []
        self._key_weights: list[dict[str, Tensor | None]] = []
        self._by_index: dict[int, QKHook] = {}
        self._proofs: dict[int, ProcessorProof] = {}
        self._heard: list[int] = []
        self._entered: set[int] | None = None
        self._entry_handles: list[RemovableHandle] = []
        self._owners = _spatial_transformers(self._inner)
        if not self._owners:
            raise UnsupportedModel(
                f"{type(self._inner).__name__} has no cross-attention that DAAM Lens can read. "
                "Heat maps need a UNet with spatial transformers, as in Stable Diffusion 1, 2 or XL."
            )

    def __enter__(self) -> UNetAttentionHooks:
        if self._op is not None:
            compiled.reset_graphs()
        self._handles = [
            self.unet.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.unet.register_forward_hook(self._end, always_call=True),
        ]
        self._find_layers()
        self._attach_layers()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread = 0
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._detach_layers()
        self._unwatch()
        if self._op is not None:
            compiled.reset_graphs()

    def __reduce__(self) -> tuple[Any, ...]:
        """A model that is copied or written while it is listened to takes its hooks along: the copy's do nothing."""
        return _detached, ()

    # -- hooks on the UNet ------------------------------------------------------------------------------------------

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        receiver = self.receiver
        if receiver is None or not self._handles or not receiver.wants_forward():
            return
        try:
            if self._exchanged():
                self._detach_layers()
                self._attach_layers()
            self._heard.clear()
            inputs = inputs_of(args, kwargs)
            if receiver.begin_forward(inputs):
                self.context, self.thread = inputs.context, get_ident()
        except Exception as error:
            receiver.fail(error)

    def _end(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self.thread != get_ident() or self.receiver is None:
            return
        self.thread, self.context = 0, None
        try:
            if output is not None:
                self._require_all()
            self.receiver.end_forward(output is not None)
        except Exception as error:
            self.receiver.fail(error)

    def dispatch(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        """Hand one layer's projections on; an exception ends the recording of this forward, never the picture."""
        if self.thread != get_ident() or self.receiver is None:
            return
        try:
            self._heard.append(index)
            self.receiver.on_attention(index, grid, q, k, cross, of_context)
        except Exception as error:
            self.thread = 0
            self.receiver.fail(error)

    def text_keys(self, index: int, states: Tensor) -> Tensor:
        """What a layer makes of a text that the model is not given: `[columns, dim]` -> `[columns, heads * d]`.

        A LoRA takes part as it stands; these hooks do not take it for the model's own.
        """
        thread, self.thread = self.thread, 0
        try:
            with torch.no_grad():
                return self._hook(index).keys_of(states)
        finally:
            self.thread = thread

    def key_weights(self, index: int) -> object:
        """What a layer's keys depend on, see `concepts.plain_weights`."""
        return plain_weights(self._hook(index).attn.to_k)

    def _hook(self, index: int) -> QKHook:
        if len(self._by_index) != len(self.layers):
            self._by_index = {hook.index: hook for _, hooks in self._hooks for hook in hooks}
        return self._by_index[index]

    @property
    def compiled(self) -> bool:
        """Whether the UNet runs through `torch.compile`."""
        return self._op is not None

    def key_versions(self) -> tuple[list[Tensor | None], list[int]]:
        """The weights that make keys of the text, and how often each was written to: the same text gives other keys where
        this is another."""
        found = [weights["weight"] for weights in self._key_weights]
        return found, [0 if weight is None else weight._version for weight in found]

    def reattach(self) -> None:
        """Put hooks on every layer again, also on those that were left out and those that somebody else replaced."""
        if self._self_detached or any(
            isinstance(handle, ForwardWrapper) and not handle.is_outermost for handle in self._layer_handles
        ):
            self._detach_layers()
            self._attach_layers()

    def detach_self_attention(self, but: Grid | None) -> None:
        """Take the hooks off every self-attention layer that was not on this grid in its last call.

        A compiled UNet keeps them: its hooks are part of its graph.
        """
        if self._self_detached or self._op is not None:
            return
        self._self_detached = True
        for hook, handles in self._self_layers:
            if hook.grid_hook.grid != but and not hook.is_cross:
                for handle in handles:
                    handle.remove()

    # -- every layer that ran was read ------------------------------------------------------------------------------

    def watch_layers(self, bias: Tensor | None = None) -> None:
        """Note in the forward that comes which cross-attention layers are entered: each must give queries and keys, and must
        attend with them.

        A hook on each layer would cost every step some hundred microseconds, so this is for a first step alone. Processors of
        diffusers are known to attend so; what others do is computed once more. A compiled graph cannot be watched; it is
        traced with every layer.

        Args:
            bias: what is added to the scores of the text's columns, `[batch, 1, 1, keys]`, None where nothing is.
        """
        if self._op is not None or self._entered is not None:
            return
        entered: set[int] = set()
        self._entered = entered
        for _, hooks in self._hooks:
            for hook in hooks:
                layer = self.layers[hook.index]
                if not layer.name.endswith("attn2"):
                    continue
                self._entry_handles.append(hook.attn.register_forward_pre_hook(lambda *_, index=hook.index: entered.add(index)))
                if needs_proof(hook.attn):
                    self._proofs[hook.index] = ProcessorProof(hook.attn, layer.heads, layer.scale, bias)

    def _unwatch(self) -> None:
        self._entered = None
        while self._entry_handles:
            self._entry_handles.pop().remove()
        for proof in self._proofs.values():
            proof.remove()
        self._proofs = {}

    def _require_all(self) -> None:
        """Every layer that ran gave queries and keys, once.

        Raises:
            UnsupportedModel: one did not; the text names it and its processor.
        """
        entered = self._entered or set()
        silent = entered - set(self._heard)
        changed = [index for index, proof in self._proofs.items() if index in entered - silent and not proof.holds]
        self._unwatch()
        for _, hooks in self._hooks:
            for hook in hooks:
                if hook.pending:
                    hook.forget()
                    if hook.is_cross or (hook.is_cross is None and self.layers[hook.index].name.endswith("attn2")):
                        silent.add(hook.index)
        if silent:
            raise UnsupportedModel(
                self._unread(min(silent), "attended without the queries and keys of its own `to_q` and `to_k`")
            )
        if changed:
            raise UnsupportedModel(
                self._unread(
                    min(changed),
                    "did not give what its queries, keys and values make: something changes them, or the "
                    "probabilities, behind the projections",
                )
            )

    def _unread(self, index: int, what: str) -> str:
        hook = self._hook(index)
        processor = type(getattr(hook.attn, "processor", hook.attn)).__name__
        return (
            f"{self.layers[index].name} of {type(self._inner).__name__} {what}, so its map would be wrong; its processor is "
            f"{processor}. Use the model's default attention processor"
        )

    # -- hooks on the layers ---------------------------------------------------------------------------------------

    def _exchanged(self) -> bool:
        """Whether a projection is another module than it was: a LoRA loaded inside the trace puts new ones there."""
        return [children.get(name) for children, name in self._projections] != self._known

    def _attach_layers(self) -> None:
        if self._exchanged():
            self._find_layers()
        self._self_detached = False
        for grid_hook, hooks in self._hooks:
            self._layer_handles.append(grid_hook.owner.register_forward_pre_hook(grid_hook.on_input, with_kwargs=True))
            for hook in hooks:
                hook.forget()
                handles = hook.attach()
                self._layer_handles += handles
                if self.layers[hook.index].name.endswith("attn1"):
                    self._self_layers.append((hook, handles))
                if hook.key_weights is not None:
                    self._key_weights.append(hook.key_weights)

    def _find_layers(self) -> None:
        self.layers, self._hooks, self._projections = [], [], []
        self._by_index = {}
        for name, owner in self._owners:
            grid_hook = GridHook(self, owner)
            hooks = []
            for number, block in enumerate(owner.transformer_blocks):  # type: ignore[union-attr, arg-type]
                # Upscalers have blocks whose first attention is to the text, too.
                both = self._self_attention or getattr(block, "only_cross_attention", False)
                for part in ("attn1", "attn2") if both else ("attn2",):
                    attn = getattr(block, part, None)
                    if attn is not None:
                        hook = QKHook(grid_hook, attn, len(self.layers), self._op)
                        hooks.append(hook)
                        self.layers.append(_describe(attn, f"{name}.transformer_blocks.{number}.{part}"))
                        self._projections += [(owner._modules, part) for owner, part, _ in hook.projections()]
            self._hooks.append((grid_hook, hooks))
        self._known = [children.get(name) for children, name in self._projections]

    def _detach_layers(self) -> None:
        for handle in self._layer_handles:
            handle.remove()
        self._layer_handles = []
        self._self_layers, self._key_weights = [], []


def _detached() -> UNetAttentionHooks:
    hooks = object.__new__(UNetAttentionHooks)
    hooks.receiver, hooks.context, hooks.thread, hooks._handles = None, None, 0, []
    return hooks


_TEMPORAL = ("motion_modules", "temp_attentions", "transformer_in")
"""What UNets of videos call their attention between frames, which has no text among its keys."""


def _spatial_transformers(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of every module that owns `transformer_blocks` with an `attn2`, in the order of the forward pass."""
    found = [
        (name, module)
        for name, module in unet.named_modules()
        if isinstance(getattr(module, "transformer_blocks", None), nn.ModuleList)
        and not any(part in _TEMPORAL for part in name.split("."))
        and any(getattr(block, "attn2", None) is not None for block in module.transformer_blocks)  # type: ignore[union-attr]
    ]
    order = {"down": 0, "mid": 1, "up": 2}
    return sorted(found, key=lambda item: order[_block(item[0])])


def _block(name: str) -> Block:
    head = name.split(".", 1)[0]
    if head.startswith("mid"):
        return "mid"
    return "up" if head.startswith(("up", "output")) else "down"


def _describe(attn: Any, name: str) -> Layer:
    heads = int(attn.heads)
    inner = getattr(attn, "inner_dim", None) or attn.to_q.out_features  # type: ignore[union-attr]
    scale = getattr(attn, "scale", None)
    if not isinstance(scale, (int, float)):
        scale = (int(inner) // heads) ** -0.5  # type: ignore[arg-type]
    return Layer(name, _block(name), heads, float(scale))
