"""Attention layers of a UNet: where they stand, what they are called, hooks on their projections."""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any

from torch import Tensor, nn

from ..types import Block, Layer
from . import compile_op as compiled
from .projection_hooks import GridHook, QKHook

_TEMPORAL = ("motion_modules", "temp_attentions", "transformer_in")
"""What UNets of videos call their attention between frames, which has no text among its keys."""
_CONTROL = "ctrl_"
"""How the parts of a control begin that runs inside a UNet (ControlNet-XS): what it attends to is not the picture's."""


_CASCADE = "SDCascadeAttnBlock"
"""Stable Cascade's block of one attention, to the picture's own positions and then to the text."""


def spatial_transformers(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of every module that owns `transformer_blocks` with an `attn2`, or is Stable Cascade's own block, in the
    order of the forward pass."""
    found = [
        (name, module)
        for name, module in unet.named_modules()
        if type(module).__name__ == _CASCADE or _attends_to_text(name, module)
    ]
    order = {"down": 0, "mid": 1, "up": 2}
    return sorted(found, key=lambda item: order[_block(item[0])])


def columns_behind(unet: nn.Module, kwargs: Mapping[str, Any]) -> int:
    """How many keys a UNet puts behind those of its text in each cross-attention, 0 where they are its text alone.

    I2VGen-XL puts the picture that it starts from there: what two strided convolutions leave of a pooled square, and a few
    tokens of its embedding. Stable Cascade puts a few tokens for the summary of the text, and for each picture prompt.

    Args:
        kwargs: what it is called with.
    """
    if type(unet).__name__ == "StableCascadeUNet":
        given = [kwargs.get(name) for name in ("clip_text_pooled", "clip_img")]
        rows = [1 if one.dim() == 2 else int(one.shape[1]) for one in given if isinstance(one, Tensor)]
        return sum(rows) * int(unet.config.clip_seq)  # type: ignore[union-attr, arg-type]
    if type(unet).__name__ != "I2VGenXLUNet":
        return 0
    height, width = (1, 1)
    for layer in unet.image_latents_context_embedding:  # type: ignore[union-attr]
        if (pooled := getattr(layer, "output_size", None)) is not None:
            height, width = _pair(pooled)
        elif isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
            sides = zip((height, width), _pair(layer.padding), layer.kernel_size, layer.stride, strict=True)
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side, padding, kernel, stride in sides)
    return height * width + int(unet.config.in_channels)  # type: ignore[union-attr, arg-type]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _attends_to_text(name: str, module: nn.Module) -> bool:
    blocks = getattr(module, "transformer_blocks", None)
    apart = any(part in _TEMPORAL or part.startswith(_CONTROL) for part in name.split("."))
    return isinstance(blocks, nn.ModuleList) and not apart and any(getattr(b, "attn2", None) is not None for b in blocks)


class UNetLayers:
    """The attention layers of a UNet as they stand now.

    Args:
        owners: its spatial transformers, see `spatial_transformers`.
        self_attention: `attn1` too.
        dispatcher: takes what the hooks read.
        op: hands it on from inside a compiled graph, None where none is compiled.

    Attributes:
        described: every layer, in the order of the forward pass.
        grids: the hooks on the spatial transformers.
        hooks: those on the layers, by their numbers.
    """

    def __init__(
        self,
        owners: list[tuple[str, nn.Module]],
        self_attention: bool,
        dispatcher: compiled.Dispatcher,
        op: compiled.HookOp | None,
    ) -> None:
        self.described: list[Layer] = []
        self.grids: list[GridHook] = []
        self.hooks: list[QKHook] = []
        for name, owner in owners:
            grid_hook = GridHook(dispatcher, owner)
            self.grids.append(grid_hook)
            if type(owner).__name__ == _CASCADE:
                self.hooks.append(QKHook(grid_hook, owner.attention, len(self.hooks), op))
                self.described.append(_describe(owner.attention, f"{name}.attention"))
                continue
            for number, block in enumerate(owner.transformer_blocks):  # type: ignore[union-attr, arg-type]
                # Upscalers have blocks whose first attention is to the text, too.
                both = self_attention or getattr(block, "only_cross_attention", False)
                for part in ("attn1", "attn2") if both else ("attn2",):
                    attn = getattr(block, part, None)
                    if attn is not None:
                        self.hooks.append(QKHook(grid_hook, attn, len(self.hooks), op))
                        self.described.append(_describe(attn, f"{name}.transformer_blocks.{number}.{part}"))
        places = [(owner._modules, part) for hook in self.hooks for owner, part, _ in hook.projections()]
        own = [hook.attn for hook in self.hooks if getattr(hook.attn, "processor", None) is not None]
        # One that is a module stands among the layer's modules.
        places += [(held, "processor") for attn in own for held in (vars(attn), attn._modules)]
        self._held = [held for held, _ in places]
        self._names = [name for _, name in places]
        self._known = self._parts()

    def sees_picture(self, index: int) -> bool:
        """Whether a layer's keys are the picture's own positions ahead of the text."""
        return bool(getattr(self.hooks[index].grid_hook.owner, "self_attn", False))

    def exchanged(self) -> bool:
        """Whether a projection or a processor is another than it was: a LoRA loaded inside the trace puts new projections
        there, and fusing them new processors."""
        return not all(map(is_, self._parts(), self._known))

    def _parts(self) -> list[Any]:
        return list(map(dict.get, self._held, self._names))


def _block(name: str) -> Block:
    head = name.split(".", 1)[0]
    if head.startswith("mid"):
        return "mid"
    return "up" if head.startswith(("up", "output")) else "down"


def _describe(attn: Any, name: str) -> Layer:
    heads = int(attn.heads)
    inner = getattr(attn, "inner_dim", None) or attn.to_q.out_features
    scale = getattr(attn, "scale", None)
    if not isinstance(scale, (int, float)):
        scale = (int(inner) // heads) ** -0.5
    return Layer(name, _block(name), heads, float(scale))
