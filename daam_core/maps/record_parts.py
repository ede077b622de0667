"""The parts of a record, checked one by one before anything is made of them: see `serialization` for the schema.

Each raises BadRecord where it is nothing that a recording holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import BadRecord, quoted
from ..types import Grid
from .data import Detail, LayerInfo
from .frames import Frames
from .output_space import OutputSpace
from .record_values import Values, by_grid, finite
from .relations import Relations

MOST_PLACES = 2000
"""That are held against each other."""
MOST_FRAMES = 4096
"""Of a video."""
_BLOCKS = ("down", "mid", "up")


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[Grid, Tensor]:
    return by_grid({name.removeprefix(f"{part}/"): x for name, x in tensors.items() if name.startswith(f"{part}/")})


def checked_maps(tensors: Mapping[str, Tensor], part: str, channels: int, frames: Frames | None) -> dict[Grid, Tensor]:
    """The maps of one part by resolution, `[channels, h, w]`; of a video with several frames `[frames, channels, h, w]`."""
    shape = (channels,) if frames is None or len(frames) == 1 else (len(frames), channels)
    return {g: finite(x, f"{part}/{grid_name(g)}", torch.float32, (*shape, *g)) for g, x in _part(tensors, part).items()}


def checked_frames(values: Values) -> Frames | None:
    """The frames of a video: some of its latent frames, in order, each in one of them at most."""
    if values.get("frames") is None:
        return None
    about = values.inside("frames")
    latents = about.whole("latents", 2, MOST_FRAMES)
    spans = about.spans("spans", latents)
    if not spans:
        raise BadRecord("This record is of a video and has none of its frames; record the video again.")
    return Frames(spans, latents)


def checked_layer(values: Values) -> LayerInfo:
    """One layer of the model."""
    h, w = values.wholes("grid", 1, 2**20, count=2)
    block = values.text("place")
    if block not in _BLOCKS:
        raise BadRecord(f"This record has a layer in {quoted(block, 40)}; there are {', '.join(_BLOCKS)}.")
    return LayerInfo(values.text("name"), (h, w), values.whole("heads", 1, 2**16), block)  # type: ignore[arg-type]


def checked_detail(
    tensors: Mapping[str, Tensor], values: Values, layers: tuple[LayerInfo, ...], steps: int, tokens: int
) -> Detail | None:
    """The maps of tokens that were kept apart by steps, layers or both, float16 `[steps or 1, layers or 1, tokens, h, w]`; None
    where none were."""
    maps = _part(tensors, "detail")
    if values.get("detail") is None:
        return None
    about = values.inside("detail")
    by_step = about.flag("by_step")
    kept = {g: tuple(x) for g, x in by_grid(about.inside("layers").whole_lists(0, len(layers) - 1)).items()}
    if not maps or (kept and kept.keys() != maps.keys()) or not (by_step or kept):
        raise BadRecord("This record's steps and layers do not fit its maps; record the picture again.")
    # A layer may stand at a resolution that is not its own: what was cut from an area is laid into the whole picture.
    for (h, w), held in kept.items():
        if list(held) != sorted(set(held)):
            raise BadRecord(f"This record's layers of resolution {h} x {w} are not in order.")
    checked = {
        g: finite(
            x, f"detail/{grid_name(g)}", torch.float16, (steps if by_step else 1, len(kept[g]) if kept else 1, tokens, *g)
        )
        for g, x in maps.items()
    }  # fmt: skip
    return Detail(checked, kept, by_step)


def checked_heads(tensors: Mapping[str, Tensor], layers: tuple[LayerInfo, ...], channels: int) -> dict[int, Tensor] | None:
    """The heads of each layer by its number, `[heads, channels, h, w]`; None where they were not kept."""
    found = {name.removeprefix("heads/"): x for name, x in tensors.items() if name.startswith("heads/")}
    if not found:
        return None
    if found.keys() != {str(i) for i in range(len(layers))}:
        raise BadRecord(f"This record has heads of {len(found)} layers, and not of each of its {len(layers)}.")
    return {
        i: finite(found[str(i)], f"heads/{i}", torch.float32, (layer.heads, channels, *layer.grid))
        for i, layer in enumerate(layers)
    }


def checked_self_attention(tensors: Mapping[str, Tensor], frames: int) -> dict[Grid, Tensor] | None:
    """The picture's attention to itself by resolution, `[n, n]`; None where it was not kept."""
    found = _part(tensors, "self")
    for (h, w), x in found.items():
        n = frames * h * w
        finite(x, f"self/{h}x{w}", torch.float32, (n, n))
        if float(x.min()) < 0 or not torch.allclose(x.sum(-1), torch.ones(n), atol=0.01):
            raise BadRecord("This record's self-attention does not add up to 1; record the picture again.")
    return found or None


def checked_relations(tensors: Mapping[str, Tensor], channels: int) -> Relations | None:
    """What the text attends to; None where it was not kept."""
    if "text-queries" not in tensors:
        return None
    matrix = tensors.get("text-text")
    found = Relations(
        checked_maps(tensors, "text-image", channels, None),
        None if matrix is None else finite(matrix, "text-text", torch.float32, (channels, channels)),
        finite(tensors["text-queries"], "text-queries", torch.float32, (channels,)),
    )
    if any(float(x.min()) < 0 for x in found.tensors() if x.numel()):
        raise BadRecord("This record's attention of the text is below 0; record the picture again.")
    return found


def checked_output(tensors: Mapping[str, Tensor], values: Values, channels: int) -> OutputSpace | None:
    """What the attention gave out; None where it was not kept."""
    if values.get("output_weight") is None:
        return None
    weight = values.number("output_weight")
    affinity = _part(tensors, "affinity")
    if weight < 0 or len(affinity) > 1 or values.get("frames") is not None:
        raise BadRecord("This record's output space is not that of one recording; record the picture again.")
    for (h, w), x in affinity.items():
        if h * w > MOST_PLACES:
            raise BadRecord(f"This record's affinity is of {h} x {w} places, and at most {MOST_PLACES} are held.")
        finite(x, f"affinity/{h}x{w}", torch.float32, (h * w, h * w))
        if float(x.abs().max()) > 1.01:
            raise BadRecord("This record's affinity is not between -1 and 1; record the picture again.")
    return OutputSpace(checked_maps(tensors, "output", channels, None), affinity, weight)


def grid_name(grid: Grid) -> str:
    """`HxW`, as names of parts have it."""
    return f"{grid[0]}x{grid[1]}"
