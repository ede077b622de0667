"""Hooks on every cross-attention of a UNet: they read the projections and change nothing.

Works on any UNet whose spatial transformers own `transformer_blocks` with `attn1` and `attn2` (diffusers, ldm, sgm and
the WebUI forks): LoRA, hypernetworks and every attention optimisation act before, inside or after `to_q` / `to_k`, so
what these give out is what the model attends with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ..types import Block, Grid, Layer
from . import compile_op as compiled
from .forward_wrapper import ForwardWrapper
from .projection_hooks import GridHook, QKHook

_Handle = ForwardWrapper | RemovableHandle


OnAttention = Callable[[int, Grid, Tensor, Tensor, bool], None]
"""Takes what one layer attended with: its position in `UNetAttentionHooks.layers`, the grid (h, w) of latent positions,
n = h * w, q `[batch, n, heads * d]`, k `[batch, keys, heads * d]`, and whether the keys are text (else the picture itself)."""


class UNetAttentionHooks:
    """Hooks on one UNet; a context manager that owns every handle it made.

    Args:
        unet: the model, compiled or not.
        on_attention: called for each attention layer while the UNet runs, see `OnAttention`.
        before: called with (sample, timestep, context) when the UNet is called: `[batch, c, h, w]`, a number or tensor, and
            `[batch, keys, dim]`.
        after: called when the UNet is done.
        failed: called once with the exception if one of the others raised; nothing is recorded from then on, and the
            UNet goes on as if there were no hooks.
        self_attention: hooks on `attn1` too.

    Raises:
        UnsupportedModel: the model has no cross-attention in spatial transformers.
    """

    def __init__(
        self,
        unet: nn.Module,
        on_attention: OnAttention,
        before: Callable[[Tensor, Any, Tensor | None], None],
        after: Callable[[], None],
        failed: Callable[[Exception], None],
        self_attention: bool = False,
    ) -> None:
        self.layers: list[Layer] = []
        self._on_attention, self._before, self._after, self._failed = on_attention, before, after, failed
        self._outer = unet
        self._unet: nn.Module = getattr(unet, "_orig_mod", unet)
        self._self_attention = self_attention
        self._live = False
        self._op = compiled.HookOp(self) if compiled.is_compiled(unet) else None
        self._handles: list[RemovableHandle] = []
        self._layer_handles: list[_Handle] = []
        self._self_layers: list[tuple[GridHook, list[_Handle]]] = []
        self._self_detached = False
        self._hooks: list[tuple[GridHook, list[QKHook]]] = []
        self._projections: list[tuple[dict[str, Any], str]] = []
        self._known: list[nn.Module | None] = []
        self._owners = _spatial_transformers(self._unet)
        if not self._owners:
            raise UnsupportedModel(
                f"{type(self._unet).__name__} has no cross-attention that DAAM Lens can read. "
                "Heat maps need a UNet with spatial transformers, as in Stable Diffusion 1, 2 or XL."
            )

    def __enter__(self) -> UNetAttentionHooks:
        self._live = True
        if self._op is not None:
            compiled.reset_graphs()
        self._handles = [
            self._outer.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._outer.register_forward_hook(self._end),
        ]
        self._attach_layers()
        return self

    def __exit__(self, *_: object) -> None:
        self._live = False
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._detach_layers()
        if self._op is not None:
            compiled.reset_graphs()

    # -- hooks on the UNet ------------------------------------------------------------------------------------------

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._live:
            return
        try:
            if self._exchanged():
                self._detach_layers()
                self._attach_layers()
            sample = args[0] if args else kwargs["sample"]
            timestep = args[1] if len(args) > 1 else kwargs.get("timestep", kwargs.get("timesteps"))
            context = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else kwargs.get("context"))
            self._before(sample, timestep, context if isinstance(context, Tensor) else None)
        except Exception as error:
            self._stop(error)

    def _end(self, *_: object) -> None:
        if not self._live:
            return
        try:
            self._after()
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._live = False
        self._failed(error)

    def dispatch(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool) -> None:
        """Hand one layer's projections on; an exception ends the recording, never the picture."""
        if not self._live:
            return
        try:
            self._on_attention(index, grid, q, k, cross)
        except Exception as error:
            self._stop(error)

    @property
    def compiled(self) -> bool:
        """Whether the UNet runs through `torch.compile`."""
        return self._op is not None

    def resume(self) -> None:
        """Record again after a failure: it belonged to one call of the pipeline."""
        self._live = bool(self._handles)

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
        for grid_hook, handles in self._self_layers:
            if grid_hook.grid != but:
                for handle in handles:
                    handle.remove()

    # -- hooks on the layers ---------------------------------------------------------------------------------------

    def _exchanged(self) -> bool:
        """Whether a projection is another module than it was: a LoRA loaded inside the trace puts new ones there."""
        return [children.get(name) for children, name in self._projections] != self._known

    def _attach_layers(self) -> None:
        if not self._hooks or self._exchanged():
            self._find_layers()
        self._self_detached = False
        for grid_hook, hooks in self._hooks:
            self._layer_handles.append(grid_hook.owner.register_forward_pre_hook(grid_hook.on_input, with_kwargs=True))
            for hook in hooks:
                handles = hook.attach()
                self._layer_handles += handles
                if hook.is_self:
                    self._self_layers.append((grid_hook, handles))

    def _find_layers(self) -> None:
        self.layers, self._hooks, self._projections = [], [], []
        for name, owner in self._owners:
            grid_hook = GridHook(self, owner)
            hooks = []
            for number, block in enumerate(owner.transformer_blocks):  # type: ignore[union-attr, arg-type]
                for part in ("attn1", "attn2") if self._self_attention else ("attn2",):
                    attn = getattr(block, part, None)
                    if attn is not None:
                        hook = QKHook(grid_hook, attn, len(self.layers), self._op, part == "attn1")
                        hooks.append(hook)
                        self.layers.append(_describe(attn, f"{name}.transformer_blocks.{number}.{part}"))
                        self._projections += [(attn._modules, "to_q"), (attn._modules, hook.key_name)]
            self._hooks.append((grid_hook, hooks))
        self._known = [children.get(name) for children, name in self._projections]

    def _detach_layers(self) -> None:
        for handle in self._layer_handles:
            handle.remove()
        self._layer_handles = []
        self._self_layers = []


def _spatial_transformers(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of every module that owns `transformer_blocks` with an `attn2`, in the order of the forward pass."""
    found = [
        (name, module)
        for name, module in unet.named_modules()
        if isinstance(getattr(module, "transformer_blocks", None), nn.ModuleList)
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
