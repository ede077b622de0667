"""Hooks on every cross-attention of a UNet: they read the projections and change nothing.

Works on any UNet whose spatial transformers own `transformer_blocks` with `attn1` and `attn2` (diffusers, ldm, sgm and
the WebUI forks): LoRA, hypernetworks and every attention optimisation act before, inside or after `to_q` / `to_k`, so
what these give out is what the model attends with.

The way of a query: `QKHook.on_query` keeps it until the keys of the same call come, and `UNetAttentionHooks.dispatch` hands
both on. In the first forward the receiver's `on_attention` finds out where they belong; from then on `PlannedLayers.take` puts
them where they wait for the others, by `LayerPlan.add`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import attrgetter, itemgetter
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ..types import Grid, Layer
from . import compile_op as compiled
from .forward_end import register_forward_end
from .forward_wrapper import ForwardWrapper
from .layer_check import TEXT_LAYERS, LayerCheck, require_paired
from .noted_layers import take_notes
from .plain_weights import plain_weights
from .planned_layers import PlannedLayers
from .processor_proof import may_change
from .projection_hooks import QKHook
from .projection_wrapper import NOTE, READ, SKIP, Note
from .unet_forward import AttentionReceiver, inputs_of
from .unet_layers import UNetLayers, columns_behind, spatial_transformers

_Handle = ForwardWrapper | RemovableHandle
_weight, _version = itemgetter("weight"), attrgetter("_version")
logger = logging.getLogger("daam_lens")


class UNetAttentionHooks:
    """Hooks on one UNet; a context manager that owns every handle it made.

    Args:
        unet: the model, compiled or not.
        receiver: takes what it attends with; another may take its place between two forwards.
        self_attention: hooks on `attn1` too.

    Attributes:
        thread: the thread whose forward is recorded now, 0 where none is.
        context: the text that the UNet is given in it.
        planned: those of its layers whose way to the sums is known from an earlier forward, None where none is.
        notes: of what projections of such layers gave out in it.
        spared: those whose keys are held already.

    Raises:
        UnsupportedModel: the model has no cross-attention in spatial transformers.
    """

    def __init__(self, unet: nn.Module, receiver: AttentionReceiver | None = None, self_attention: bool = False) -> None:
        self.receiver = receiver
        self.thread = 0
        self.context: Tensor | None = None
        self.planned: PlannedLayers | None = None
        self.notes: list[Note] = []
        self.spared: frozenset[int] = frozenset()
        self._modes: tuple[frozenset[int], bool] = frozenset(), True
        self.unet = unet
        self._inner: nn.Module = getattr(unet, "_orig_mod", unet)
        self._self_attention = self_attention
        self._op = compiled.HookOp(self) if compiled.is_compiled(unet) else None
        self._handles: list[RemovableHandle] = []
        self._layer_handles: list[_Handle] = []
        self._self_layers: list[tuple[QKHook, list[_Handle]]] = []
        self._self_detached = False
        self._key_weights: list[dict[str, Tensor | None]] = []
        self._read: list[int] = []
        self._watch: LayerCheck | None = None
        self._changing = False  # layers of the text of somebody's own are proved in every step
        self._unchecked = self._cached = False
        self._owners = spatial_transformers(self._inner)
        if not self._owners:
            raise UnsupportedModel(
                f"{type(self._inner).__name__} has no cross-attention that DAAM Lens can read. "
                "Heat maps need a UNet with spatial transformers, as in Stable Diffusion 1, 2 or XL."
            )
        self._layers = self._found_layers()

    @property
    def layers(self) -> list[Layer]:
        """Every layer that is listened to, in the order of the forward pass."""
        return self._layers.described

    def __enter__(self) -> UNetAttentionHooks:
        if self._op is not None:
            compiled.reset_graphs()
        self._handles = [
            self.unet.register_forward_pre_hook(self._begin, with_kwargs=True),
            register_forward_end(self.unet, self._end),
        ]
        self._layers = self._found_layers()
        self._attach_layers()
        self._cached = False
        return self

    def __exit__(self, *_: object) -> None:
        self.thread, self.planned = 0, None
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
            if self._layers.exchanged():
                self._detach_layers()
                self._attach_layers()
                self.check_layers()
            self._read = []
            inputs = inputs_of(args, kwargs, columns_behind(self._inner, kwargs))
            if receiver.begin_forward(inputs):
                self.planned = receiver.planned()
                self._set_modes(self.planned)
                if self._unchecked or self._changing:
                    self._begin_check(inputs.text_bias)
                self.context, self.thread = inputs.context, get_ident()
        except Exception as error:
            receiver.fail(error)

    def _end(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self.thread != get_ident() or self.receiver is None:
            return
        planned, context, notes = self.planned, self.context, self.notes
        self.thread, self.context, self.planned, self.notes = 0, None, None, []
        try:
            if output is not None:
                if planned is not None and notes:
                    take_notes(notes, planned, context, self._layers.hooks, self._hand_on)
                self._require_all([] if planned is None else planned.read)
            self.receiver.end_forward(output is not None)
        except Exception as error:
            self.receiver.fail(error)

    def _set_modes(self, planned: PlannedLayers | None) -> None:
        """Which layers are only noted in the forward that begins, and of which nothing is read."""
        self.notes = []
        noted = frozenset() if planned is None else planned.plans.held()
        self.spared = frozenset() if planned is None else planned.plans.spared(planned.text_keys)
        modes = noted, planned is None or planned.reads_self
        if modes == self._modes:
            return
        self._modes = modes
        if planned is not None:
            planned.plans.before = None
        for hook in self._layers.hooks:
            if hook.is_cross is False:
                hook.set_mode(READ if modes[1] else SKIP)
            else:
                # One that was never read may be of those whose queries are written to, see `QKHook.can_note`.
                hook.set_mode(NOTE if hook.can_note and hook.is_cross and hook.index in noted else READ)

    def _hand_on(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool) -> None:
        self._read.append(index)
        if self.receiver is not None:
            self.receiver.on_attention(index, grid, q, k, cross, of_context)

    def dispatch(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool = False) -> None:
        """Hand one layer's projections on; an exception ends the recording of this forward, never the picture."""
        if self.thread != get_ident() or self.receiver is None:
            return
        try:
            planned = self.planned
            if planned is not None and cross and planned.take(index, grid, q, k, of_context):
                return
            self._hand_on(index, grid, q, k, cross, of_context)
        except Exception as error:
            # `_end` does not come here any more: nothing of this forward may be held on to.
            self.thread, self.context, self.planned, self.notes = 0, None, None, []
            self.receiver.fail(error)

    def sees_picture(self, index: int) -> bool:
        """Whether a layer's keys are the picture's own positions ahead of the text."""
        return self._layers.sees_picture(index)

    def text_keys(self, index: int, states: Tensor) -> Tensor:
        """What a layer makes of a text that the model is not given: `[columns, dim]` -> `[columns, heads * d]`.

        A LoRA takes part as it stands; these hooks do not take it for the model's own.
        """
        thread, self.thread = self.thread, 0
        try:
            with torch.no_grad():
                return self._layers.hooks[index].keys_of(states)
        finally:
            self.thread = thread

    def key_weights(self, index: int) -> object:
        """What a layer's keys depend on, see `plain_weights`."""
        return plain_weights(self._layers.hooks[index].attn.to_k)

    @property
    def compiled(self) -> bool:
        """Whether the UNet runs through `torch.compile`."""
        return self._op is not None

    def key_versions(self) -> tuple[list[Tensor | None], list[int]]:
        """The weights that make keys of the text, and how often each was written to: the same text gives other keys where
        this is another."""
        found = list(map(_weight, self._key_weights))
        try:
            return found, list(map(_version, found))
        except AttributeError:  # of a weight that was taken away
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

    def check_layers(self) -> None:
        """Note in the next forward that is recorded which cross-attention layers are entered, see `LayerCheck`. A compiled
        graph cannot be watched; it is traced with every layer."""
        self._unchecked = self._op is None

    def _begin_check(self, bias: Tensor | None) -> None:
        """`bias`: what is added to the scores of the text's columns, `[batch, 1, 1, keys]`, None where nothing is."""
        self._unchecked = False
        self._unwatch()
        self._watch = LayerCheck(self.layers, self._layers.hooks, type(self._inner).__name__, bias)

    def _unwatch(self) -> LayerCheck | None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.remove()
        return watch

    def _require_all(self, planned: Sequence[int]) -> None:
        """Every layer that ran gave queries and keys, once; `planned` are those that were read on their known way.

        Raises:
            UnsupportedModel: one did not; the text names it and its processor.
        """
        watch = self._unwatch()
        require_paired(self.layers, self._layers.hooks, type(self._inner).__name__)
        if watch is not None and watch.require_all([*self._read, *planned]) and not self._cached:
            self._cached = True
            logger.warning(
                "Attention layers of %s did not attend in a step, as with caches that answer for them: the maps are sums of "
                "fewer terms.", type(self._inner).__name__,
            )  # fmt: skip

    # -- hooks on the layers ---------------------------------------------------------------------------------------

    def _found_layers(self) -> UNetLayers:
        return UNetLayers(self._owners, self._self_attention, self, self._op)

    def _attach_layers(self) -> None:
        if self._layers.exchanged():
            self._layers = self._found_layers()
        self._self_detached, self._modes = False, (frozenset(), True)
        text_hooks = (hook for hook in self._layers.hooks if self.layers[hook.index].name.endswith(TEXT_LAYERS))
        self._changing = self._op is None and any(may_change(hook.attn) for hook in text_hooks)
        for grid_hook in self._layers.grids:
            self._layer_handles.append(grid_hook.attach(self._op is not None))
        for hook in self._layers.hooks:
            hook.forget()
            handles = hook.attach()
            self._layer_handles += handles
            if self.layers[hook.index].name.endswith("attn1"):
                self._self_layers.append((hook, handles))
            if hook.key_weights is not None:
                self._key_weights.append(hook.key_weights)

    def _detach_layers(self) -> None:
        for handle in self._layer_handles:
            handle.remove()
        self._layer_handles = []
        self._self_layers, self._key_weights = [], []


def _detached() -> UNetAttentionHooks:
    hooks = object.__new__(UNetAttentionHooks)
    hooks.receiver, hooks.context, hooks.planned, hooks.thread, hooks._handles = None, None, None, 0, []
    hooks.notes, hooks.spared = [], frozenset()
    return hooks
