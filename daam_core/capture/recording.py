"""One recording, finished: takes one picture out of an accumulator and brings it to the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadArgument, NothingRecorded, recording_failure
from ..maps.data import Detail, LayerInfo, PictureRun
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .accumulator import Recorder


def picture_run(
    recorder: Recorder,
    layers: Sequence[Layer],
    prompts: Sequence[Prompt],
    image: int,
    size: tuple[int, int],
    picture: NDArray[np.uint8] | None,
    timesteps: Sequence[float],
) -> PictureRun:
    """Take one picture out of a recorder and bring it to the CPU.

    Raises:
        BadArgument: there is no such picture.
        NothingRecorded: not one step was finished, or the attention was not finite.
    """
    if not 0 <= image < recorder.images:
        raise BadArgument(f"There is no picture {image}: this run made {recorder.images}, counted from 0.")
    try:
        recorded = recorder.sums
    except Exception as error:  # what waited in pools is worked off only now
        raise NothingRecorded(recording_failure(error)) from error
    if recorder.step_count == 0 or not recorded:
        raise NothingRecorded("Not one sampling step was finished, so there is no heat map. Let the sampler run on.")
    rows = prompts[image].rows
    sums: dict[Grid, Tensor] = {}
    late: dict[Grid, Tensor] = {}
    terms: dict[Grid, int] = {}
    for part in recorded.values():
        grid = part.area.canvas(part.grid)
        total, weighted = (part.area.put(_planes(x[image], part.grid, rows)) for x in (part.total, part.late))
        sums[grid] = sums[grid] + total if grid in sums else total
        late[grid] = late[grid] + weighted if grid in late else weighted
        terms[grid] = terms.get(grid, 0) + part.terms
    if not all(bool(x.isfinite().all()) for x in sums.values()):
        raise NothingRecorded(
            "The model's attention was not a number (NaN) in this run, so there is no heat map. "
            "That happens in half precision: try float32 or bfloat16, or a lower guidance scale."
        )
    seen = sorted(recorder.grids)
    position = {index: i for i, index in enumerate(seen)}
    return PictureRun(
        sums=sums,
        late=late,
        terms=terms,
        layers=tuple(
            LayerInfo(layers[i].name, recorder.grids[i], layers[i].heads, layers[i].block) for i in seen
        ),
        detail=_detail(recorder, image, rows, position),
        heads={
            position[i]: _planes(
                x.unflatten(0, (recorder.images, -1))[image], recorder.grids[i], rows
            )
            for i, x in recorder.heads.items()
        }
        or None,
        self_attention=_self_attention(recorder, image),
        size=size,
        picture=picture,
        prompt=prompts[image],
        steps=recorder.step_count,
        timesteps=tuple(timesteps),
    )


def _planes(x: Tensor, grid: Grid, rows: int) -> Tensor:
    """`[..., n, rows]` on the device -> `[..., rows, h, w]` on the CPU, cut to this prompt's own rows."""
    return x[..., :rows].transpose(-1, -2).unflatten(-1, grid).contiguous().cpu()


def _detail(recorder: Recorder, image: int, rows: int, position: dict[int, int]) -> Detail | None:
    keep = recorder.keep
    if not (keep.layers or keep.steps):
        return None
    tokens = rows - 3
    kept: dict[Grid, dict[int, Tensor]] = {}
    for slot in recorder.slots.values():
        steps = [x[image, :, :tokens] for x in slot.steps]
        if slot.total is not None:
            steps = [slot.total[image, :, 1 : tokens + 1]]
        # Layer sums over many steps pass float16's range of whole numbers, not its range: 3 digits stay.
        stacked = torch.stack([slot.area.put(_planes(x.half(), slot.grid, tokens)) for x in steps])
        grid, number = slot.area.canvas(slot.grid), -1 if slot.layer is None else position[slot.layer]
        same = kept.setdefault(grid, {})
        same[number] = same[number] + stacked if number in same else stacked
    return Detail(
        values={grid: torch.stack([x for _, x in sorted(same.items())], 1) for grid, same in kept.items()},
        layers={grid: tuple(sorted(same)) for grid, same in kept.items()} if keep.layers else {},
        by_step=keep.steps,
    )


def _self_attention(recorder: Recorder, image: int) -> dict[Grid, Tensor] | None:
    if recorder.self_attention is None or recorder.self_grid is None:
        return None
    walk = recorder.self_attention[image].cpu()
    return {recorder.self_grid: walk / walk.sum(-1, keepdim=True)}
