"""Several prompts that one picture was made of, one after the other, as one recorded image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..prompt.compose import concat
from .data import Detail, RecordedImage
from .output_space import OutputSpace, united
from .relations import in_succession
from .subset import over_frames

K = TypeVar("K")


def join_in_succession(parts: Sequence[RecordedImage]) -> RecordedImage:
    """One recorded image of the parts: words, steps and terms of all of them, in order.

    A word that stands in several prompts is numbered on: `house`, `house#2`. Of a video whose prompts left room for different
    numbers of frames, only the mean over the frames is kept.
    """
    if len(parts) == 1:
        return parts[0]
    if len({part.frames for part in parts}) > 1:  # more words leave room for fewer frames
        parts = [over_frames(part) for part in parts]
    longest = max(parts, key=lambda part: part.steps)
    layers = tuple(dict.fromkeys(layer for part in parts for layer in part.layers))
    keys = [[layers.index(layer) for layer in part.layers] for part in parts]
    heads = [
        {} if part.heads is None else {own[i]: x for i, x in part.heads.items()} for part, own in zip(parts, keys, strict=True)
    ]
    return replace(
        longest,
        sums=_joined([part.sums for part in parts]),
        time_weighted=_joined([part.time_weighted for part in parts]),
        num_terms={grid: sum(p.num_terms.get(grid, 0) for p in parts) for part in parts for grid in part.num_terms},
        layers=layers,
        detail=_detail(parts),
        heads=_joined(heads) or None,
        prompt=concat([part.prompt for part in parts]),
        relations=in_succession([part.relations for part in parts]),
        output=_output([part.output for part in parts]),
    )


def _joined(parts: Sequence[Mapping[K, Tensor]]) -> dict[K, Tensor]:
    """Channels `[…, channels, h, w]` of all parts: start, end and padding added up, tokens one after the other."""
    joined = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        own = [part[key] for part in parts if key in part]
        start, end, padding = (torch.stack([x[..., i, :, :] for x in own]).sum(0).unsqueeze(-3) for i in (0, -2, -1))
        joined[key] = torch.cat([start, *(x[..., 1:-2, :, :] for x in own), end, padding], -3)
    return joined


def _output(parts: Sequence[OutputSpace | None]) -> OutputSpace | None:
    """Scores of all words in order, and the mean affinity; None where a part has none."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        return None
    affinity: OutputSpace | None = known[0]
    for part in known[1:]:
        affinity = united(affinity, part, scores=False)
    assert affinity is not None
    return replace(affinity, scores=_joined([part.scores for part in known]))


def _detail(parts: Sequence[RecordedImage]) -> Detail | None:
    """Layers and steps apart: a part that came late, or ended early, has zeros where it was not there."""
    details = [part.detail for part in parts if part.detail is not None]
    if len(details) != len(parts):
        return None
    values = {}
    for grid in details[0].values:
        own = [detail.values[grid] for detail in details]
        steps = max(len(x) for x in own)
        values[grid] = torch.cat([F.pad(x, (0, 0) * 4 + (0, steps - len(x))) for x in own], 2)
    return replace(details[0], values=values)
