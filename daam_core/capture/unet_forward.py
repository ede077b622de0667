"""One forward of a UNet: what it is given, and who takes what it attends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..types import Grid
from .buffers import BatchSlice
from .planned_layers import PlannedLayers
from .recording import Group


@dataclass(frozen=True, eq=False)
class UNetInputs:
    """What one forward of a UNet is given.

    Attributes:
        sample: latents `[batch, c, h, w]`.
        timestep: a number or tensor, as the sampler has it.
        context: the text `[batch, keys, dim]`, None where there is none.
        context_mask: which of the text's columns count, `[batch, keys]`, or what is added to their scores, `[batch, 1, keys]`;
            None where all count alike.
        masks_self: whether the picture's attention to itself is masked.
        columns_behind: how many keys the layers have behind those of the text.
    """

    sample: Tensor
    timestep: Any
    context: Tensor | None
    context_mask: Tensor | None = None
    masks_self: bool = False
    columns_behind: int = 0

    @property
    def frames(self) -> int:
        """The frames of the latents of videos `[batch, c, frames, h, w]`, 0 of pictures."""
        return int(self.sample.shape[2]) if self.sample.dim() == 5 else 0

    @property
    def text_bias(self) -> Tensor | None:
        """What UNets of diffusers add to the scores of the text's columns, float32 `[batch, 1, 1, keys]`; None for nothing."""
        mask = self.context_mask
        if mask is None:
            return None
        return ((1 - mask.to(self.sample.dtype)) * -10000.0 if mask.dim() == 2 else mask[:, 0]).float()[:, None, None]


@dataclass(frozen=True, eq=False)
class RunningForward:
    """One forward of the UNet, as far as it is recorded.

    Attributes:
        batch, keys: rows of its layers' batch, columns of its text.
        context: the text, `[batch, keys, dim]`.
        frames: of a video, how many of those rows are one video, 0 of pictures.
        places: whose sums which rows go into.
        behind: keys behind those of the text in each layer.
        bias: what is added to the scores of the text's columns, `[batch, 1, 1, keys]`, None where nothing is.
        planned: the layers that attended in an earlier forward like this one, and those that came in this one.
    """

    batch: int
    keys: int
    context: Tensor
    frames: int
    places: Sequence[tuple[Group, BatchSlice]]
    behind: int
    bias: Tensor | None
    planned: PlannedLayers


class AttentionReceiver(Protocol):
    """Takes what a UNet attends with. An exception of any of these ends the recording, never the picture."""

    def wants_forward(self) -> bool:
        """Whether a forward that begins in this thread may be recorded; must not raise."""

    def begin_forward(self, inputs: UNetInputs) -> bool:
        """The UNet is called; gives whether this forward is recorded."""

    def planned(self) -> PlannedLayers | None:
        """The layers of this forward whose way is known, so that they need not come to `on_attention`; None for none."""

    def on_attention(self, layer: int, grid: Grid, q: Tensor, k: Tensor, cross: bool, of_context: bool) -> None:
        """What one layer attends with.

        Args:
            layer: its position in `UNetAttentionHooks.layers`.
            grid: (h, w) of latent positions, n = h * w.
            q, k: `[batch, n, heads * d]` and `[batch, keys, heads * d]`.
            cross: whether the keys are text, else the picture itself.
            of_context: whether the keys are a plain linear projection of the very text that the UNet was given.
        """

    def end_forward(self, finished: bool) -> None:
        """The forward is over, `finished` False where it was left by an exception."""

    def fail(self, error: Exception) -> None:
        """One of the others raised; this forward is not recorded any further."""


def inputs_of(args: tuple[Any, ...], kwargs: dict[str, Any], columns_behind: int = 0) -> UNetInputs:
    """The arguments of a forward of diffusers' UNets (Stable Cascade's has its own names), or of ldm's (`x`, `timesteps`,
    `context`)."""
    sample = args[0] if args else kwargs["sample"] if "sample" in kwargs else kwargs["x"]
    named = next((kwargs[name] for name in ("timestep", "timesteps", "timestep_ratio") if name in kwargs), None)
    timestep = args[1] if len(args) > 1 else named
    text = next((kwargs[name] for name in ("context", "clip_text") if name in kwargs), None)
    context = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else text)
    mask = kwargs.get("encoder_attention_mask")
    return UNetInputs(
        sample,
        timestep,
        context if isinstance(context, Tensor) else None,
        mask if isinstance(mask, Tensor) else None,
        kwargs.get("attention_mask") is not None,
        columns_behind,
    )


def same_time(one: Any, other: Any) -> bool:
    """Whether two timesteps are the same; where there are none, they are."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.to(other.device), other)
    return bool(one == other)
