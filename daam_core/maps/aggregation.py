"""How heads, layers and steps become one map: `AGGREGATIONS`, one function each.

A new one is a function here, its name in `data.Aggregation`, and its name in files in `serialization.RULES`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument, DetailMissing, NothingRecorded
from .data import Aggregation, RecordedImage

_EIGHTH = 8


def sum_of_all(image: RecordedImage, latent: int = 64) -> RecordedImage:
    """Eq. 6, as it was recorded: `D_k = sum over layers i, steps j, heads l of bicubic(F_k^(i,j,l))`; a word is the sum of its
    tokens.

    Raises:
        BadArgument: the maps were brought together by another aggregation already.

    Example:
        >>> sum_of_all(maps.positive) is maps.positive
        True
    """
    _check_unaggregated(image)
    return image


def mean_of_clamped(image: RecordedImage, latent: int = 64) -> RecordedImage:
    """The rule of the castorini/daam package, for comparison with published figures; a word is the mean of its tokens.

    It differs from the paper's Eq. 6: `mean over layers and heads of clamp(bicubic(sum over steps), min=0)` at the package's
    own latent size, without the mid block and the maps 8 times smaller than the latent.

    Args:
        image: a recording with heads apart, per layer float32 `[heads, channels, h, w]`.
        latent: side of the package's latent, 64 or 96: `sums` is float32 `[channels, latent, latent]`.

    Raises:
        DetailMissing: heads were not kept apart.
        NothingRecorded: no layer is of a size the rule takes.
        BadArgument: the maps were brought together by another aggregation already.

    Example:
        >>> tuple(mean_of_clamped(maps.positive).sums[64, 64].shape)
        (10, 64, 64)
    """
    _check_unaggregated(image)
    if image.heads is None:
        raise DetailMissing("castorini's rule clamps every head's map. Record with `trace(pipe, keep='heads')`.")
    total: Tensor | None = None
    count = 0
    for i, maps in image.heads.items():
        h, w = image.layers[i].grid
        if image.layers[i].block == "mid" or int(math.sqrt(latent * latent // (h * w))) == _EIGHTH:
            continue
        up = F.interpolate(maps, size=(latent, latent), mode="bicubic").clamp_(min=0).sum(0)
        total = up if total is None else total + up
        count += maps.shape[0]
    if total is None:
        raise NothingRecorded("castorini's rule drops every layer of this model; use aggregation='sum'.")
    only = {(latent, latent): torch.div(total, count)}
    # A mean of clamped maps has no parts: no choice of layers, steps or heads can be summed from it any more.
    return dataclasses.replace(
        image,
        sums=only,
        time_weighted=only,
        num_terms={(latent, latent): 1},
        detail=None,
        heads=None,
        aggregation="castorini",
    )


AGGREGATIONS: Mapping[Aggregation, Callable[[RecordedImage, int], RecordedImage]] = {
    "sum": sum_of_all,
    "castorini": mean_of_clamped,
}
"""Each takes one side of a recording and the latent side of castorini's package, and gives the side with other `sums`."""


def token_weight(aggregation: Aggregation, tokens: int) -> float:
    """What each of a word's tokens counts: 1 where a word is their sum, `1 / tokens` where it is their mean."""
    return 1.0 / tokens if aggregation == "castorini" else 1.0


def _check_unaggregated(image: RecordedImage) -> None:
    if image.aggregation != "sum":
        raise BadArgument(f"These maps were made by the aggregation {image.aggregation!r}; start from the recording's.")
