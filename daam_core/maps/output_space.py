"""What an attention gave out while a picture was made, held against each word and against itself: output space.

With O the attention's own output (its heads side by side, ahead of the projection behind it), V the values of the text's keys
and w_t = t squared the weight of step t = 1, 2, …, late steps placing an object better:

- a word's score is `S[i, k] = sum over layers and steps of w_t <O[i], V_k>`, and in joint attention
  `<O_img[i], O_txt[k]>`, the same call's output at the text's own place;
- the affinity of two places is `G = sum over layers and steps of w_t u u^T`, u the output of each place at length 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..types import Grid

MISSING = (
    "The output of the attention was not recorded. Record with `trace(pipe, output_space=True)` or `--output-space`. It is "
    "kept summed over layers, steps and heads, so that a choice of these has none."
)


@dataclass(frozen=True, eq=False)
class OutputSpace:
    """Output space of one side of one picture; tensors on the CPU.

    Attributes:
        scores: per grid (h, w), float32 `[channels, h, w]`: S, summed over the tokens of a channel; of either sign.
        affinity: of one grid (h, w) of at most 576 places, float32 `[h * w, h * w]`: the mean of G, -1 to 1; empty where only a
            part of the picture was painted.
        weight: what the affinity's mean is over: the sum of its w_t over layers and steps.
    """

    scores: Mapping[Grid, Tensor]
    affinity: Mapping[Grid, Tensor]
    weight: float

    def of_grids(self, grids: Sequence[Grid]) -> OutputSpace:
        """The scores of some resolutions; the affinity has one of its own, and stays."""
        return replace(self, scores={grid: self.scores[grid] for grid in grids if grid in self.scores})

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield from self.scores.values()
        yield from self.affinity.values()


def united(first: OutputSpace | None, second: OutputSpace | None, scores: bool = True) -> OutputSpace | None:
    """Two recordings of one text as one; None where one of them has none.

    Args:
        scores: whether the words are the same, so that their scores can be added; else only the affinity is left.
    """
    if first is None or second is None:
        return None
    affinity, weight = first.affinity, first.weight
    if first.affinity.keys() == second.affinity.keys():
        weight = first.weight + second.weight
        share = first.weight / weight if weight else 1.0
        affinity = {grid: share * x + (1 - share) * second.affinity[grid] for grid, x in first.affinity.items()}
    return OutputSpace(_added(first.scores, second.scores) if scores else {}, affinity, weight)


def _added(a: Mapping[Grid, Tensor], b: Mapping[Grid, Tensor]) -> dict[Grid, Tensor]:
    return {**a, **b, **{grid: a[grid] + b[grid] for grid in a if grid in b}}


def anchored(affinity: Tensor, own: Tensor, share: float) -> Tensor:
    """The affinity of every place to the places of some words' own peaks.

    Args:
        affinity: G, `[n, n]`.
        own: the words' own maps, `[words, n]`.
        share: of the places, the hottest ones of a word's map, 0..1; at least one.

    Returns:
        float32 `[words, n]`: the mean of G's rows at these places.
    """
    count = max(1, round(share * own.shape[1]))
    peaks = own.topk(count, dim=1).indices
    return torch.stack([affinity[rows].mean(0) for rows in peaks])


def above_base(maps: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """Channels `[channels, …]` with the least value of each word's map taken off it, a word's tokens alike, so that Eq. 7 is a
    share of what stands out.

    Args:
        words: the channels of each word, a channel in one word at most; others are words of their own.
    """
    found = maps.clone()
    for channels in words:
        index = list(channels)
        found[index] -= maps[index].sum(0).amin() / len(index)
    return found
