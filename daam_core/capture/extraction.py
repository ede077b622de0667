"""Takes one side of one picture out of an accumulator and brings it to the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention.cells import Cells
from ..errors import BadArgument, NothingRecorded, recording_failure
from ..maps.data import Detail, LayerInfo, RecordedImage
from ..maps.frames import Frames, same_frames, sizes_of
from ..maps.output_space import OutputSpace
from ..maps.relations import Relations
from ..prompt.prompt import Prompt
from ..types import Grid, Layer
from .accumulator import Accumulator
from .output_sums import AFFINITY_POSITIONS, OutputSums
from .relation_sums import RelationSums

logger = logging.getLogger("daam_lens")


def recorded_image(
    accumulator: Accumulator,
    layers: Sequence[Layer],
    prompts: Sequence[Prompt],
    image: int,
    timesteps: Sequence[float],
) -> RecordedImage:
    """Take one side of one picture out of an accumulator and bring it to the CPU.

    Raises:
        BadArgument: there is no such picture.
        NothingRecorded: not one step was finished, or the attention was not finite.
    """
    if not 0 <= image < accumulator.images:
        raise BadArgument(f"There is no picture {image}: this run made {accumulator.images}, counted from 0.")
    try:
        recorded = accumulator.sums
    except Exception as error:  # what waited in batches is worked off only now
        logger.warning("DAAM Lens: what was recorded could not be added up", exc_info=error)
        raise NothingRecorded(recording_failure(error)) from error
    if accumulator.step_count == 0 or not recorded:
        raise NothingRecorded("Not one sampling step was finished, so there is no heat map. Let the sampler run on.")
    channels = prompts[image].num_channels
    sums: dict[Grid, Tensor] = {}
    time_weighted: dict[Grid, Tensor] = {}
    num_terms: dict[Grid, int] = {}
    for part in recorded.values():
        grid = part.area.canvas(part.grid)
        total, weighted = (
            part.area.put(_planes(x[image], part.grid, channels, part.frames), image) for x in (part.total, part.time_weighted)
        )
        sums[grid] = sums[grid] + total if grid in sums else total
        time_weighted[grid] = time_weighted[grid] + weighted if grid in time_weighted else weighted
        num_terms[grid] = num_terms.get(grid, 0) + part.terms
    if not all(bool(x.isfinite().all()) for x in sums.values()):
        raise NothingRecorded(
            "The model's attention was not a number (NaN) in this run, so there is no heat map. "
            "In float16 that happens: try bfloat16 or float32, or a lower guidance scale. Otherwise the model was given "
            "something that is not a number, and the picture is spoilt, too."
        )
    frames = same_frames([part.frames for part in recorded.values()])
    seen = sorted(accumulator.grids)
    position = {index: i for i, index in enumerate(seen)}
    return RecordedImage(
        sums=sums,
        time_weighted=time_weighted,
        num_terms=num_terms,
        layers=tuple(LayerInfo(layers[i].name, accumulator.grids[i], layers[i].heads, layers[i].block) for i in seen),
        detail=_detail(accumulator, image, channels, position),
        heads={position[i]: x for i, x in _heads(accumulator, image, channels, frames).items()} or None,
        self_attention=_self_attention(accumulator, image, frames),
        relations=_relations(accumulator.relations, image, channels),
        prompt=prompts[image],
        steps=accumulator.step_count,
        timesteps=tuple(timesteps),
        frames=frames,
        output=_output(accumulator.outputs, image, channels),
    )


def _planes(x: Tensor, grid: Grid, channels: int, frames: Frames | None = None) -> Tensor:
    """`[..., n, channels]` on the device -> `[..., channels, h, w]` on the CPU, cut to this prompt's own channels.

    Of a video `[frames * n, channels]` -> `[frames, channels, h, w]`, each the mean of the latent frames that it stands for;
    without the first axis where there is one.
    """
    if frames is None:
        return x[..., :channels].transpose(-1, -2).unflatten(-1, grid).contiguous().cpu()
    planes = _planes(x.unflatten(0, (len(frames), -1)), grid, channels)
    planes /= sizes_of(frames, planes)
    return planes if len(frames) > 1 else planes[0]


def _heads(accumulator: Accumulator, image: int, channels: int, frames: Frames | None) -> dict[int, Tensor]:
    """The heads of each layer apart, `[heads, channels, h, w]` of the whole picture; of a video the mean of its frames.

    Raises:
        NothingRecorded: a layer attended on several grids, so that its heads have no common one.
    """
    found: dict[int, Tensor] = {}
    for (layer, grid, area), x in accumulator.heads.items():
        own = area.put(_planes(x.unflatten(0, (accumulator.images, -1))[image], grid, channels), image)
        own = own / (1 if frames is None else frames.latents)
        if own.shape[-2:] != accumulator.grids[layer]:
            first, second = ("x".join(map(str, side)) for side in (accumulator.grids[layer], own.shape[-2:]))
            raise NothingRecorded(
                f"In this run a layer attended on grids of {first} and of {second}, so its heads cannot be kept apart. Record "
                "without heads."
            )
        found[layer] = found[layer] + own if layer in found else own
    return found


def _detail(accumulator: Accumulator, image: int, channels: int, position: dict[int, int]) -> Detail | None:
    keep = accumulator.keep
    if not (keep.layers or keep.steps):
        return None
    tokens = channels - 3
    kept: dict[Grid, dict[int, Tensor]] = {}
    for buffer in accumulator.buffers.values():
        steps = [x[image, :, :tokens] for x in buffer.steps]
        if buffer.total is not None:
            steps = [buffer.total[image, :, 1 : tokens + 1]]
        if buffer.into.frames is not None:  # summed over the frames: their mean, as of a frame that stands for several
            steps = [x / buffer.into.frames.latents for x in steps]
        # Layer sums over many steps pass float16's range of whole numbers, not its range: 3 digits stay.
        stacked = torch.stack([buffer.area.put(_planes(x.half(), buffer.grid, tokens), image) for x in steps])
        grid, number = buffer.area.canvas(buffer.grid), -1 if buffer.layer is None else position[buffer.layer]
        same = kept.setdefault(grid, {})
        same[number] = same[number] + stacked if number in same else stacked
    return Detail(
        values={grid: torch.stack([x for _, x in sorted(same.items())], 1) for grid, same in kept.items()},
        layers={grid: tuple(sorted(same)) for grid, same in kept.items()} if keep.layers else {},
        by_step=keep.steps,
    )


def _self_attention(accumulator: Accumulator, image: int, frames: Frames | None) -> dict[Grid, Tensor] | None:
    if accumulator.self_attention is None or accumulator.self_grid is None:
        return None
    h, w = accumulator.self_grid
    if accumulator.self_attention.shape[-1] != h * w * (1 if frames is None else len(frames)):
        return None  # of more frames than have maps of their own
    walk = accumulator.self_attention[image].cpu()
    return {accumulator.self_grid: walk / walk.sum(-1, keepdim=True)}


def _relations(sums: RelationSums, image: int, channels: int) -> Relations | None:
    if sums.num_queries is None:
        return None
    found = Relations(
        {grid: _planes(x[image], grid, channels) for grid, x in sums.to_image.items()},
        None if sums.to_text is None else sums.to_text[image, :channels, :channels].cpu().clone(),
        sums.num_queries[image, :channels].cpu().clone(),
    )
    if not all(bool(x.isfinite().all()) for x in found.tensors()):
        raise NothingRecorded(
            "What the text attended to was not a number (NaN) in this run. Record without the relations text->image and "
            "text->text, or in float32."
        )
    return found


def _output(sums: OutputSums | None, image: int, channels: int) -> OutputSpace | None:
    if sums is None or not sums.scores:
        return None
    scores: dict[Grid, Tensor] = {}
    for (grid, area), x in sums.scores.items():
        maps = area.put(_planes(x[image], grid, channels), image)
        canvas = area.canvas(grid)
        scores[canvas] = scores[canvas] + maps if canvas in scores else maps
    affinity: dict[Grid, Tensor] = {}
    weight = 0.0
    for grid, x in sums.affinity.items():
        weight = sums.weights[grid]
        affinity[Cells.at_most(grid, AFFINITY_POSITIONS).shape] = x[image].cpu() / weight
    found = OutputSpace(scores, affinity, weight)
    if not all(bool(x.isfinite().all()) for x in found.tensors()):
        raise NothingRecorded("What the attention gave out was not a number (NaN) in this run. Record without output space.")
    return found
