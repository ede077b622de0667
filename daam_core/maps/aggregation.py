"""The rule of the castorini/daam package, for comparison with published figures.

It differs from the paper's Eq. 6: every (layer, head) map is upscaled on its own and clamped at 0, the mean is taken
instead of the sum, the mid block and the maps 8 times smaller than the latent are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import NothingRecorded
from .data import LayerInfo

DROPPED_FACTOR = 8


def mean_of_clamped(heads: Mapping[int, Tensor], layers: Sequence[LayerInfo], side: int) -> Tensor:
    """Mean over layers and heads of `clamp(bicubic(sum over steps), min=0)`.

    Args:
        heads: per layer, float32 `[heads, channels, h, w]`, summed over steps.
        layers: what the layers are.
        side: the package's latent side, 64 or 96.

    Returns:
        float32 `[channels, side, side]`.

    Raises:
        NothingRecorded: no layer is of a size the rule takes.
    """
    total: Tensor | None = None
    count = 0
    for i, maps in heads.items():
        h, w = layers[i].grid
        if layers[i].block == "mid" or int(math.sqrt(side * side // (h * w))) == DROPPED_FACTOR:
            continue
        up = F.interpolate(maps, size=(side, side), mode="bicubic").clamp_(min=0).sum(0)
        total = up if total is None else total + up
        count += maps.shape[0]
    if total is None:
        raise NothingRecorded("castorini's rule drops every layer of this model; use method='paper'.")
    return torch.div(total, count)
