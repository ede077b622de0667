"""Parts of a recording: some of its layers, steps, heads or resolutions, summed as Eq. 6 sums the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument, DetailMissing
from ..types import Grid
from .data import PictureRun


@dataclass(frozen=True)
class Part:
    """Sums `[rows, h, w]` and number of terms per grid of a part, and whether start, end and padding are in it."""

    sums: dict[Grid, Tensor]
    terms: dict[Grid, int]
    specials: bool = True


def layer_numbers(run: PictureRun, layers: Iterable[str | int]) -> list[int]:
    """Positions in `run.layers` of layers named by position, module path, or "down", "mid", "up".

    Raises:
        BadArgument: no such layer.
    """
    numbers: set[int] = set()
    for want in layers:
        hits = {i for i, layer in enumerate(run.layers) if want in (i, layer.name, layer.block)}
        if not hits:
            raise BadArgument(f"There is no layer {want!r}; there are {len(run.layers)}, in down, mid and up blocks.")
        numbers |= hits
    return sorted(numbers)


def of_heads(run: PictureRun, layers: Sequence[int], heads: Sequence[int]) -> Part:
    """Some heads of some layers, all steps.

    Raises:
        DetailMissing: heads were not kept apart.
        BadArgument: no such head.
    """
    if run.heads is None:
        raise DetailMissing("Heads were not kept apart. Record with `trace(pipe, heads=True)`.")
    sums: dict[Grid, Tensor] = {}
    terms: dict[Grid, int] = {}
    for i in layers:
        grid = run.layers[i].grid
        there = [h for h in heads if 0 <= h < run.layers[i].heads]
        if there and grid in run.sums:
            part = run.heads[i][there].sum(0)
            sums[grid] = sums[grid] + part if grid in sums else part
            terms[grid] = terms.get(grid, 0) + len(there) * run.steps
    if not sums:
        raise BadArgument(f"No recorded layer has a head {heads}.")
    return Part(sums, terms)


def of_detail(run: PictureRun, layers: Sequence[int] | None, steps: Sequence[int] | None) -> Part:
    """Some layers and some steps (None is all); only the prompt's own words are in it.

    Raises:
        DetailMissing: they were not kept apart.
        BadArgument: no such step, or nothing is left.
    """
    detail = run.detail
    if detail is None or (steps is not None and not detail.by_step) or (layers is not None and not detail.layers):
        axis = "steps" if layers is None else "layers"
        raise DetailMissing(f"The {axis} were not kept apart. Record with `trace(pipe, detail=('layers', 'steps'))`.")
    if steps is not None and (wrong := [j for j in steps if not -run.steps <= j < run.steps]):
        raise BadArgument(f"There is no step {wrong[0]}: {run.steps} were recorded, counted from 0.")
    sums: dict[Grid, Tensor] = {}
    terms: dict[Grid, int] = {}
    for grid, values in detail.values.items():
        held = detail.layers.get(grid, ())
        columns = list(range(values.shape[1])) if layers is None else [c for c, i in enumerate(held) if i in layers]
        if not columns or grid not in run.sums:
            continue
        chosen = values[:, columns] if steps is None else values[list(steps)][:, columns]
        # Start, end and padding rows are empty: detail holds the words alone.
        sums[grid] = torch.nn.functional.pad(chosen.float().sum((0, 1)), (0, 0, 0, 0, 1, 2))
        heads = sum(
            layer.heads for i, layer in enumerate(run.layers) if layer.grid == grid and (layers is None or i in layers)
        )
        terms[grid] = heads * (run.steps if steps is None else len(steps))
    if not sums:
        raise BadArgument("The choice leaves no layer at a recorded resolution.")
    return Part(sums, terms, specials=False)
