"""Two recordings of one picture added up, such as those of a base model and its refiner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import BadArgument, quoted
from ..prompt.prompt import Prompt
from ..types import Grid
from .data import Detail, RecordedImage
from .output_space import united
from .relations import added

K = TypeVar("K")


def add(first: RecordedImage, second: RecordedImage) -> RecordedImage:
    """The sum of two recordings of one side: Eq. 6 over the layers, heads and steps of both.

    `time_weighted` counts each recording's steps from 1. Steps, layers and heads stay apart where both recordings kept them and
    have the same layers; a base model and its refiner have not.

    Raises:
        BadArgument: their prompts or frames differ, or one is not a sum.
    """
    if not _same_words(first.prompt, second.prompt):
        seen = f"{quoted(first.prompt.text, 200)} and {quoted(second.prompt.text, 200)}"
        raise BadArgument(f"Recordings of one prompt can be added; these are of {seen}.")
    if not first.aggregation == second.aggregation == "sum":
        raise BadArgument("Recordings are added before another aggregation than 'sum' is made of them.")
    if first.frames != second.frames:
        seen = " and ".join("a picture" if x.frames is None else f"{len(x.frames)} frames" for x in (first, second))
        raise BadArgument(f"Recordings of the same frames can be added; these are of {seen}. `sum_frames()` makes one of all.")
    same = first.layers == second.layers
    grids = {**first.sums, **second.sums}
    return RecordedImage(
        sums=_added(first.sums, second.sums),
        time_weighted=_added(first.time_weighted, second.time_weighted),
        num_terms={grid: first.num_terms.get(grid, 0) + second.num_terms.get(grid, 0) for grid in grids},
        layers=first.layers if same else first.layers + second.layers,
        detail=_detail(first.detail, second.detail) if same else None,
        heads=_added(first.heads, second.heads) if same and first.heads and second.heads else None,
        self_attention=_self_attention(first, second),
        prompt=first.prompt,
        steps=first.steps + second.steps,
        timesteps=first.timesteps[: first.steps] + second.timesteps[: second.steps],
        specials=first.specials and second.specials,
        relations=added(first.relations, second.relations),
        frames=first.frames,
        output=united(first.output, second.output),
    )


def _same_words(a: Prompt, b: Prompt) -> bool:
    """Whether channels mean the same; how far a context is padded and what a host weighs does not matter."""
    words = ([(word.label, word.channels) for word in prompt.words] for prompt in (a, b))
    return a.text == b.text and a.num_channels == b.num_channels and next(words) == next(words)


def _added(a: Mapping[K, Tensor], b: Mapping[K, Tensor]) -> dict[K, Tensor]:
    return {**a, **b, **{key: a[key] + b[key] for key in a if key in b}}


def _detail(a: Detail | None, b: Detail | None) -> Detail | None:
    """Steps of one after the other; layers, where steps were not kept, added up."""
    if a is None or b is None or a.by_step != b.by_step or a.layers != b.layers or a.values.keys() != b.values.keys():
        return None
    if not a.by_step:
        return Detail(_added(a.values, b.values), a.layers, False)
    return Detail({grid: torch.cat([x, b.values[grid]]) for grid, x in a.values.items()}, a.layers, True)


def _self_attention(first: RecordedImage, second: RecordedImage) -> Mapping[Grid, Tensor] | None:
    """The mean over both recordings' steps where they kept the same resolution, else the first's."""
    a, b = first.self_attention or {}, second.self_attention or {}
    if a.keys() != b.keys():
        return a or b or None
    share = first.steps / (first.steps + second.steps)
    return {grid: share * x + (1 - share) * b[grid] for grid, x in a.items()} or None
