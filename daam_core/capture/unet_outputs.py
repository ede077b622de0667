"""What the cross-attention of a UNet gives out: the values it attends to and the input of its output projection.

`to_out[0]` is given softmax(Q K^T) V, heads side by side, as the layer's processor computed it: nothing is attended twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ..types import Grid
from .buffers import BatchSlice
from .forward_wrapper import ForwardWrapper, OnForward, wrap_forward
from .recording import Group, Recording

_ADDING = "IPAdapter"
"""Processors whose names begin so add what a picture prompt gives to what the text gives."""


@dataclass(frozen=True, eq=False)
class OutputForward:
    """One forward of the UNet.

    Attributes:
        places: whose sums which rows go into.
        batch, keys: rows of its layers' batch, columns of its text.
        frames: of a video, how many of those rows are one video, 0 of pictures.
    """

    places: Sequence[tuple[Group, BatchSlice]]
    batch: int
    keys: int
    frames: int


class UNetOutputs:
    """Hooks on the values and output projections of one UNet's attention layers; a context manager.

    An error ends the output space of a recording, never its words.

    Args:
        unet: the model, not compiled.
    """

    def __init__(self, unet: nn.Module) -> None:
        layers = [(name, layer) for name, layer in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
        self._hooks = [_LayerHook(self, name, layer) for name, layer in layers]
        self._handles: list[ForwardWrapper | RemovableHandle] = []
        self._known: list[nn.Module] = []
        self._forward: OutputForward | None = None
        self._recording: Recording | None = None
        self._attended: tuple[str, int, Grid] | None = None
        self._missing = 0
        self.thread = 0

    def __enter__(self) -> UNetOutputs:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A model that is copied or written while it is recorded takes its hooks along: the copy's do nothing."""
        return UNetOutputs, (nn.Module(),)

    def __exit__(self, *_: object) -> None:
        self.thread, self._forward, self._recording, self._known = 0, None, None, []
        while self._handles:
            self._handles.pop().remove()

    def begin(self, recording: Recording, forward: OutputForward) -> None:
        """A forward begins that is recorded; a LoRA that was loaded since the last one has put other modules in."""
        if recording.output_failure:
            self.__exit__()
            return
        modules = [module for hook in self._hooks for module, _ in hook.modules()]
        if modules != self._known:
            self.__exit__()
            self._handles = [wrap_forward(module, on) for hook in self._hooks for module, on in hook.modules()]
            self._known = modules
        self._recording, self._forward, self._missing, self.thread = recording, forward, 0, get_ident()

    def attended(self, name: str, layer: int, grid: Grid) -> None:
        """A layer has given queries and keys of the text, and will attend."""
        self._attended = name, layer, grid
        self._missing += 1

    def end(self, finished: bool) -> None:
        """The forward is over, `finished` False where it was left by an exception."""
        recording, self.thread, self._forward, self._attended = self._recording, 0, None, None
        if finished and self._missing and recording is not None:
            recording.fail_outputs(
                UnsupportedModel(
                    f"in {self._missing} of the UNet's layers the attention did not take its values from the layer's own "
                    "`to_v`, or did not give what it made of them to `to_out`"
                )
            )

    def on_output(self, hook: _LayerHook, values: Tensor, output: Tensor) -> None:
        """A layer is done; only what attended to the text is of interest."""
        attended, self._attended = self._attended, None
        if self._recording is None or attended is None or attended[0] != hook.name:
            return
        self._missing -= 1
        self._recording.or_without_outputs(self._add, hook, attended[1], attended[2], values, output)

    def _add(self, hook: _LayerHook, layer: int, grid: Grid, values: Tensor, output: Tensor) -> None:
        forward = self._forward
        assert forward is not None
        if forward.frames:
            raise UnsupportedModel("of videos the output of the attention is not read")
        processor = type(getattr(hook.attn, "processor", hook.attn)).__name__
        if processor.startswith(_ADDING):
            raise UnsupportedModel(f"{hook.name} adds a picture prompt to what it gives out for the text ({processor})")
        wanted = (forward.batch, grid[0] * grid[1], values.shape[-1])
        if values.shape[:2] != (forward.batch, forward.keys) or output.shape != wanted:
            raise UnsupportedModel(
                f"{hook.name} gave out {tuple(output.shape)} for values of {tuple(values.shape)}, where the UNet was given "
                f"{forward.batch} rows and {forward.keys} columns of text"
            )
        for group, where in forward.places:
            group.accumulator.add_output(layer, grid, output[where.index].detach(), values[where.index].detach(), where)


class _LayerHook:
    """Pairs the values of one call of an attention layer with what it gives out."""

    def __init__(self, outputs: UNetOutputs, name: str, attn: Any) -> None:
        self.name, self.attn, self._outputs = name, attn, outputs
        self._values: Tensor | None = None

    def modules(self) -> list[tuple[nn.Module, OnForward]]:
        """The layer's projections as they are now; those that are fused stay beside the single ones."""
        out = getattr(self.attn, "to_out", None)
        last = out[0] if isinstance(out, (nn.ModuleList, nn.Sequential)) and len(out) else None
        found: list[tuple[Any, OnForward]] = [
            (getattr(self.attn, "to_v", None), self._on_value),
            (getattr(self.attn, "to_kv", None), self._on_key_value),
            (getattr(self.attn, "to_qkv", None), self._on_fused),
            (last, self._on_output),
        ]
        return [(module, on) for module, on in found if isinstance(module, nn.Module)]

    def _on_value(self, _module: nn.Module, _args: tuple[Any, ...], values: Any) -> None:
        if self._outputs.thread == get_ident() and isinstance(values, Tensor):
            self._values = values

    def _on_key_value(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            self._on_value(module, args, output.chunk(2, dim=-1)[1])

    def _on_fused(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            self._on_value(module, args, output.chunk(3, dim=-1)[2])

    def _on_output(self, _module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        values, self._values = self._values, None
        if values is not None and args and isinstance(args[0], Tensor) and self._outputs.thread == get_ident():
            self._outputs.on_output(self, values, args[0])
