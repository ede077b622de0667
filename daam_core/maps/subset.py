"""Parts of a recording: some of its layers, steps, heads, resolutions or frames, summed as Eq. 6 sums the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadArgument, DetailMissing, quoted
from ..types import Grid
from .data import RecordedImage
from .frames import Frames, sizes_of


@dataclass(frozen=True)
class Subset:
    """Sums `[channels, h, w]` and number of terms per grid of a part, and whether start, end and padding are in it."""

    sums: dict[Grid, Tensor]
    num_terms: dict[Grid, int]
    specials: bool = True


@dataclass(frozen=True)
class Choice:
    """What is asked for; None is all. See `HeatMaps.select`."""

    layers: Sequence[str | int] | None = None
    steps: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    grids: Sequence[Grid] | None = None
    frames: Sequence[int] | None = None


def select(image: RecordedImage, choice: Choice) -> RecordedImage:
    """One side from a choice of layers, steps, heads, resolutions and frames.

    Raises:
        DetailMissing: the recording did not keep what is asked for.
        BadArgument: no such layer, step, head or resolution.
    """
    layers, steps, heads, grids = choice.layers, choice.steps, choice.heads, choice.grids
    if grids is not None:
        image = of_grids(image, grids)
    if choice.frames is not None:
        image = of_frames(image, choice.frames, alone=layers is None and steps is None and heads is None)
    if layers is None and steps is None and heads is None:
        return image
    if image.aggregation != "sum":
        raise DetailMissing(f"Maps by the aggregation {image.aggregation!r} have no parts; choose them from the sum (Eq. 6).")
    if heads is not None and steps is not None:
        raise DetailMissing("Heads are kept summed over steps: choose heads or steps, not both.")
    numbers = None if layers is None else layer_numbers(image, layers)
    if heads is not None:
        part = of_heads(image, range(len(image.layers)) if numbers is None else numbers, heads)
    else:
        part = of_detail(image, numbers, steps)
    return dataclasses.replace(
        image,
        sums=part.sums,
        time_weighted=part.sums,
        num_terms=part.num_terms,
        specials=part.specials,
        detail=None,
        heads=None,
        relations=None,
        output=None,
        frames=image.frames and image.frames.merged(),
    )


def of_frames(image: RecordedImage, numbers: Sequence[int], alone: bool = True) -> RecordedImage:
    """Some frames of a video; one of them is a picture, whose maps have no axis of frames.

    Raises:
        BadArgument: there is no such frame, or the recording is no video.
        DetailMissing: frames and layers, steps or heads were asked for together.
    """
    if image.frames is None:
        raise BadArgument("This recording is of one picture: frames can be chosen of a video.")
    chosen = image.frames.chosen(numbers)
    if len(image.frames) == 1:
        return image
    if not alone:
        raise DetailMissing("Layers, steps and heads of a video are kept as the mean over its frames: choose them or frames.")
    at: int | list[int] = chosen if len(chosen) > 1 else chosen[0]
    return dataclasses.replace(
        image,
        sums={grid: x[at] for grid, x in image.sums.items()},
        time_weighted={grid: x[at] for grid, x in image.time_weighted.items()},
        detail=None,
        heads=None,
        self_attention=None,
        relations=None,
        output=None,
        frames=Frames(tuple(image.frames.spans[i] for i in chosen), image.frames.latents),
    )


def between_references(image: RecordedImage, ahead: int, behind: int = 0) -> RecordedImage:
    """A video's side without so many of its first and last latent frames, which are references and none of the video's; what
    was kept as the mean over all of them goes. Unchanged where a frame of the maps stands for some of either."""
    frames = image.frames
    if frames is None:
        return image
    end = frames.latents - behind
    numbers = [i for i, (start, stop) in enumerate(frames.spans) if ahead <= start and stop <= end]
    spans = tuple((start - ahead, stop - ahead) for start, stop in (frames.spans[i] for i in numbers))
    if not spans or spans[0][0] != 0 or spans[-1][1] != end - ahead:
        return image
    return dataclasses.replace(of_frames(image, numbers), frames=Frames(spans, end - ahead))


def sum_frames(image: RecordedImage) -> RecordedImage:
    """A video's side as a picture's: the sum over all latent frames of those that are there, and of their terms."""
    frames = image.frames
    if frames is None:
        return image
    return dataclasses.replace(
        image,
        sums={grid: _summed(x, frames) for grid, x in image.sums.items()},
        time_weighted={grid: _summed(x, frames) for grid, x in image.time_weighted.items()},
        num_terms={grid: n * sum(frames.sizes) for grid, n in image.num_terms.items()},
        detail=None,
        heads=None,
        self_attention=None,
        frames=None,
    )


def over_frames(image: RecordedImage) -> RecordedImage:
    """A video's side with the mean of its frames as the only one."""
    if image.frames is None:
        return image
    one, terms = sum_frames(image), sum(image.frames.sizes)
    return dataclasses.replace(
        image,
        sums={grid: x / terms for grid, x in one.sums.items()},
        time_weighted={grid: x / terms for grid, x in one.time_weighted.items()},
        self_attention=None,
        frames=image.frames.merged(),
    )


def _summed(x: Tensor, frames: Frames) -> Tensor:
    """`[frames, channels, h, w]`, or `[channels, h, w]` of one, -> `[channels, h, w]`."""
    return (x * sizes_of(frames, x)).sum(0) if len(frames) > 1 else x * frames.sizes[0]


def of_grids(image: RecordedImage, grids: Sequence[Grid]) -> RecordedImage:
    """Some resolutions.

    Raises:
        BadArgument: none was chosen, or one that was not recorded.
    """
    grids = [(grid[0], grid[1]) if isinstance(grid, list) and len(grid) == 2 else grid for grid in grids]  # as JSON has them
    if not grids or (missing := [grid for grid in grids if not isinstance(grid, tuple) or grid not in image.sums]):
        seen = f"of size {quoted(missing[0], 60)} was recorded" if grids else "is left by this choice"
        raise BadArgument(f"No attention {seen}; there is {sorted(image.sums)}.")
    return dataclasses.replace(
        image,
        sums={grid: image.sums[grid] for grid in grids},
        time_weighted={grid: image.time_weighted[grid] for grid in grids},
        num_terms={grid: image.num_terms[grid] for grid in grids},
        output=image.output and image.output.of_grids(grids),
    )


def layer_numbers(image: RecordedImage, layers: Iterable[str | int]) -> list[int]:
    """Positions in `image.layers` of layers named by position, module path, or "down", "mid", "up".

    Raises:
        BadArgument: no such layer.
    """
    numbers: set[int] = set()
    for want in layers:
        known = isinstance(want, (str, int)) and not isinstance(want, bool)
        hits = {i for i, layer in enumerate(image.layers) if known and want in (i, layer.name, layer.block)}
        if not hits:
            raise BadArgument(f"There is no layer {quoted(want)}; there are {len(image.layers)}, in down, mid and up blocks.")
        numbers |= hits
    return sorted(numbers)


def of_heads(image: RecordedImage, layers: Sequence[int], heads: Sequence[int]) -> Subset:
    """Some heads of some layers, all steps; a head that is named twice counts once.

    Raises:
        DetailMissing: heads were not kept apart.
        BadArgument: no such head.
    """
    if image.heads is None:
        raise DetailMissing("Heads were not kept apart. Record with `trace(pipe, keep='heads')`.")
    _check_numbers(heads, "heads")
    sums: dict[Grid, Tensor] = {}
    num_terms: dict[Grid, int] = {}
    for i in layers:
        grid = image.layers[i].grid
        there = [h for h in range(image.layers[i].heads) if h in heads]
        if there and grid in image.sums:
            part = image.heads[i][there].sum(0)
            sums[grid] = sums[grid] + part if grid in sums else part
            num_terms[grid] = num_terms.get(grid, 0) + len(there) * image.steps
    if not sums:
        raise BadArgument(f"No recorded layer has a head {', '.join(map(str, heads)) or 'of this choice'}.")
    return Subset(sums, num_terms)


def step_numbers(image: RecordedImage, steps: Sequence[int]) -> list[int]:
    """Steps from 0 in order, each once; negative ones are counted from the end.

    Raises:
        BadArgument: none was chosen, or one that was not recorded.
    """
    _check_numbers(steps, "steps")
    if wrong := [j for j in steps if not -image.steps <= j < image.steps]:
        raise BadArgument(f"There is no step {wrong[0]}: {image.steps} were recorded, counted from 0.")
    if not steps:
        raise BadArgument(f"The choice leaves no step; {image.steps} were recorded, counted from 0.")
    return sorted({j % image.steps for j in steps})


def _check_numbers(values: Sequence[int], what: str) -> None:
    if wrong := [value for value in values if isinstance(value, bool) or not isinstance(value, int)]:
        raise BadArgument(f"{what} are whole numbers, not {quoted(wrong[0])}.")


def of_detail(image: RecordedImage, layers: Sequence[int] | None, steps: Sequence[int] | None) -> Subset:
    """Some layers and some steps (None is all); only the prompt's own words are in it. A step that is named twice, from the
    front or from the end, counts once.

    Raises:
        DetailMissing: they were not kept apart.
        BadArgument: no such step, or nothing is left.
    """
    detail = image.detail
    if detail is None or (steps is not None and not detail.by_step) or (layers is not None and not detail.layers):
        axis = "steps" if layers is None else "layers"
        raise DetailMissing(f"The {axis} were not kept apart. Record with `trace(pipe, keep=('layers', 'steps'))`.")
    if steps is not None:
        steps = step_numbers(image, steps)
    sums: dict[Grid, Tensor] = {}
    num_terms: dict[Grid, int] = {}
    for grid, values in detail.values.items():
        held = detail.layers.get(grid, ())
        columns = list(range(values.shape[1])) if layers is None else [c for c, i in enumerate(held) if i in layers]
        if not columns or grid not in image.sums:
            continue
        chosen = values[:, columns] if steps is None else values[steps][:, columns]
        # Start, end and padding channels are empty: detail holds the words alone.
        sums[grid] = torch.nn.functional.pad(chosen.float().sum((0, 1)), (0, 0, 0, 0, 1, 2))
        count = image.steps if steps is None else len(steps)
        if held:
            num_terms[grid] = count * sum(image.layers[held[c]].heads for c in columns)
        else:
            num_terms[grid] = max(1, count * image.num_terms[grid] // image.steps)
    if not sums:
        raise BadArgument("The choice leaves no layer at a recorded resolution.")
    return Subset(sums, num_terms, specials=False)
