"""One recording, finished: what the model attended to while it made one batch of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..prompt.prompt import Prompt
from ..types import Block, Grid, Size


@dataclass(frozen=True)
class LayerInfo:
    """A recorded cross-attention layer: module path, grid (h, w), number of heads, block of the model."""

    name: str
    grid: Grid
    heads: int
    block: Block


@dataclass(frozen=True)
class Detail:
    """Word maps kept apart by step and layer.

    Attributes:
        values: per grid, `[steps, layers, tokens, h, w]` float16 head sums; an axis that was not kept has size 1. Only
            the prompt's own tokens, not start, end and padding.
        layers: per grid, the position in `layers` of each entry of the second axis; empty where layers were not kept.
        by_step: whether the first axis is steps.
    """

    values: dict[Grid, Tensor]
    layers: dict[Grid, tuple[int, ...]]
    by_step: bool


@dataclass(frozen=True)
class RecordedImage:
    """What one recording holds of one picture; all tensors on the CPU.

    Attributes:
        sums: per grid (h, w), float32 `[channels, h, w]`: sum over heads, layers and steps (Eq. 6 before upscaling). Channels
            are start, the prompt's tokens, end, padding (see `Prompt`).
        time_weighted: the same with step j = 1, 2, … weighted by j squared.
        num_terms: per grid, heads x layers x steps summed; the channels of one position add up to it.
        layers: every recorded layer, in the order of the forward pass.
        detail: layers and steps apart, where kept.
        heads: per layer, float32 `[heads, channels, h, w]` summed over steps, where kept.
        self_attention: per grid, float32 `[n, n]` (query, key), rows sum to 1, where kept.
        size: (height, width) of the picture in pixels.
        picture: uint8 `[H, W, 3]`, where the picture is known.
        prompt: the words and which channels are theirs.
        steps: calls of the model that were finished.
        timesteps: the timestep of each.
    """

    sums: dict[Grid, Tensor]
    time_weighted: dict[Grid, Tensor]
    num_terms: dict[Grid, int]
    layers: tuple[LayerInfo, ...]
    detail: Detail | None
    heads: dict[int, Tensor] | None
    self_attention: dict[Grid, Tensor] | None
    size: Size
    picture: NDArray[np.uint8] | None
    prompt: Prompt
    steps: int
    timesteps: tuple[float, ...]
