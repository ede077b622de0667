"""Parts of a recording: some of its layers, steps, heads or resolutions, summed as Eq. 6 sums the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument, DetailMissing
from ..types import Grid
from .data import RecordedImage


@dataclass(frozen=True)
class Subset:
    """Sums `[channels, h, w]` and number of num_terms per grid of a part, and whether start, end and padding are in it."""

    sums: dict[Grid, Tensor]
    num_terms: dict[Grid, int]
    specials: bool = True


def layer_numbers(image: RecordedImage, layers: Iterable[str | int]) -> list[int]:
    """Positions in `image.layers` of layers named by position, module path, or "down", "mid", "up".

    Raises:
        BadArgument: no such layer.
    """
    numbers: set[int] = set()
    for want in layers:
        hits = {i for i, layer in enumerate(image.layers) if want in (i, layer.name, layer.block)}
        if not hits:
            raise BadArgument(f"There is no layer {want!r}; there are {len(image.layers)}, in down, mid and up blocks.")
        numbers |= hits
    return sorted(numbers)


def of_heads(image: RecordedImage, layers: Sequence[int], heads: Sequence[int]) -> Subset:
    """Some heads of some layers, all steps.

    Raises:
        DetailMissing: heads were not kept apart.
        BadArgument: no such head.
    """
    if image.heads is None:
        raise DetailMissing("Heads were not kept apart. Record with `trace(pipe, keep='heads')`.")
    sums: dict[Grid, Tensor] = {}
    num_terms: dict[Grid, int] = {}
    for i in layers:
        grid = image.layers[i].grid
        there = [h for h in heads if 0 <= h < image.layers[i].heads]
        if there and grid in image.sums:
            part = image.heads[i][there].sum(0)
            sums[grid] = sums[grid] + part if grid in sums else part
            num_terms[grid] = num_terms.get(grid, 0) + len(there) * image.steps
    if not sums:
        raise BadArgument(f"No recorded layer has a head {heads}.")
    return Subset(sums, num_terms)


def of_detail(image: RecordedImage, layers: Sequence[int] | None, steps: Sequence[int] | None) -> Subset:
    """Some layers and some steps (None is all); only the prompt's own words are in it.

    Raises:
        DetailMissing: they were not kept apart.
        BadArgument: no such step, or nothing is left.
    """
    detail = image.detail
    if detail is None or (steps is not None and not detail.by_step) or (layers is not None and not detail.layers):
        axis = "steps" if layers is None else "layers"
        raise DetailMissing(f"The {axis} were not kept apart. Record with `trace(pipe, keep=('layers', 'steps'))`.")
    if steps is not None and (wrong := [j for j in steps if not -image.steps <= j < image.steps]):
        raise BadArgument(f"There is no step {wrong[0]}: {image.steps} were recorded, counted from 0.")
    sums: dict[Grid, Tensor] = {}
    num_terms: dict[Grid, int] = {}
    for grid, values in detail.values.items():
        held = detail.layers.get(grid, ())
        columns = list(range(values.shape[1])) if layers is None else [c for c, i in enumerate(held) if i in layers]
        if not columns or grid not in image.sums:
            continue
        chosen = values[:, columns] if steps is None else values[list(steps)][:, columns]
        # Start, end and padding channels are empty: detail holds the words alone.
        sums[grid] = torch.nn.functional.pad(chosen.float().sum((0, 1)), (0, 0, 0, 0, 1, 2))
        heads = sum(
            layer.heads for i, layer in enumerate(image.layers) if layer.grid == grid and (layers is None or i in layers)
        )
        num_terms[grid] = heads * (image.steps if steps is None else len(steps))
    if not sums:
        raise BadArgument("The choice leaves no layer at a recorded resolution.")
    return Subset(sums, num_terms, specials=False)
