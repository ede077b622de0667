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

from ..attention.upsample import bicubic
from ..errors import BadArgument, DetailMissing, NothingRecorded
from ..prompt.prompt import Prompt
from ..types import Grid
from .data import Aggregation, RecordedImage
from .output_space import MISSING, OutputSpace, above_base, anchored

ANCHOR_SHARE = 0.05
"""Of a word's map, the share of the hottest places that are its anchors; chosen of 5 to 20 % on one half of the scenes of the
study `output`."""
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
    own latent size, without the maps 8 times smaller than the latent and without the mid block, which the paper's sum does
    not name and `sum_of_all` counts.

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


def output_scores(image: RecordedImage, latent: int = 64) -> RecordedImage:
    """How far the attention's output at each place agrees with a word's value: `S[i, k] = sum over layers and steps of
    w_t <O[i], V_k>`, in joint attention `<O_img[i], O_txt[k]>`, less its least value; a word is the sum of its tokens.

    Steps are weighted by w_t = t squared already, so `time_weighted` is the same; see `output_space`.

    Raises:
        DetailMissing: output space was not recorded.
        BadArgument: the maps were brought together by another aggregation already.

    Example:
        >>> output_scores(maps.positive)
        Traceback (most recent call last):
        daam_core.errors.DetailMissing: The output of the attention was not recorded. Record with ...
    """
    output = _recorded_output(image)
    if not output.scores:
        raise DetailMissing(MISSING)
    words = owners(image.prompt)
    return _replaced(image, {grid: above_base(x, words) for grid, x in output.scores.items()}, "output")


def anchor_affinity(image: RecordedImage, latent: int = 64) -> RecordedImage:
    """How far the attention's output at each place is that of a word's own peak: the mean of the rows of `G = sum over layers
    and steps of w_t u u^T` at the hottest `ANCHOR_SHARE` of the places of the word's late map, less its least value.

    u is the output of each place at length 1. A word's tokens have equal shares of its map, and a phrase's map is the sum of
    its words'. The only resolution is that of G, at most 24 x 24.

    Raises:
        DetailMissing: output space was not recorded, or only a part of the picture was painted.
        BadArgument: the maps were brought together by another aggregation already.

    Example:
        >>> anchor_affinity(maps.positive)
        Traceback (most recent call last):
        daam_core.errors.DetailMissing: The output of the attention was not recorded. Record with ...
    """
    output = _recorded_output(image)
    if not output.affinity:
        raise DetailMissing(f"{MISSING} Of a part of a picture (`padding_mask_crop`) there is no affinity either.")
    grid, affinity = next(iter(output.affinity.items()))
    words = owners(image.prompt)
    finest = max(image.time_weighted, key=lambda g: g[0] * g[1])
    own = bicubic([torch.stack([x[i].sum(0) for i in words]) for x in image.time_weighted.values()], finest)
    maps = anchored(affinity, F.interpolate(own[None], grid, mode="area")[0].flatten(1), ANCHOR_SHARE)
    maps = maps - maps.amin(1, keepdim=True)
    channels = torch.zeros(image.prompt.num_channels, len(affinity))
    for one, index in zip(maps, words, strict=True):
        channels[index] = one / len(index)
    return _replaced(image, {grid: channels.unflatten(1, grid)}, "anchor")


def owners(prompt: Prompt) -> list[list[int]]:
    """The channels of each word of a prompt, each channel in one word; then those of no word by themselves.

    Example:
        >>> owners(maps.prompt)
        [[1], [2], [3], [4], [5], [6], [7], [0], [8], [9]]
    """
    free = set(range(prompt.num_channels))
    found = []
    for word in prompt.words:
        found.append(sorted(free.intersection(word.channels)))
        free.difference_update(word.channels)
    return [channels for channels in found if channels] + [[channel] for channel in sorted(free)]


def _replaced(image: RecordedImage, sums: dict[Grid, Tensor], aggregation: Aggregation) -> RecordedImage:
    """One side with other sums, which have no parts: no layers, steps or heads can be chosen from them. The affinity stays."""
    assert image.output is not None
    return dataclasses.replace(
        image,
        sums=sums,
        time_weighted=sums,
        num_terms=dict.fromkeys(sums, 1),
        detail=None,
        heads=None,
        relations=None,
        output=dataclasses.replace(image.output, scores={}),
        aggregation=aggregation,
    )


def _recorded_output(image: RecordedImage) -> OutputSpace:
    _check_unaggregated(image)
    if image.output is None:
        raise DetailMissing(MISSING)
    return image.output


AGGREGATIONS: Mapping[Aggregation, Callable[[RecordedImage, int], RecordedImage]] = {
    "sum": sum_of_all,
    "castorini": mean_of_clamped,
    "output": output_scores,
    "anchor": anchor_affinity,
}
"""Each takes one side of a recording and the latent side of castorini's package, and gives the side with other `sums`."""


def token_weight(aggregation: Aggregation, tokens: int) -> float:
    """What each of a word's tokens counts: 1 where a word is their sum, `1 / tokens` where it is their mean."""
    return 1.0 / tokens if aggregation == "castorini" else 1.0


def _check_unaggregated(image: RecordedImage) -> None:
    if image.aggregation != "sum":
        raise BadArgument(f"These maps were made by the aggregation {image.aggregation!r}; start from the recording's.")
