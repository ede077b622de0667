"""Maps of a padded picture cut back to the picture: the grids keep their shape and cover the part that is the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ..attention.precision import full_precision
from ..errors import BadArgument
from ..types import Grid, Image, Size
from .data import Detail, RecordedImage
from .heatmaps import HeatMaps
from .output_space import OutputSpace


def cut_back(maps: HeatMaps, kept: Size, picture: Image | None = None) -> HeatMaps:
    """The maps of the upper left part of a picture.

    Each grid (h, w) stays h x w positions, now laid over the part alone: a position is the linear mixture of the two
    positions of the old grid that its centre lies between, on both axes. A position's channels still add up to its terms.
    Relations of the text are left out.

    Args:
        maps: of the padded picture.
        kept: (height, width) in pixels of the part, at the scale of `maps.size`.
        picture: uint8 `[H, W, 3]` that the maps are of from now on; by default what is left of theirs.

    Raises:
        BadArgument: the part is empty or larger than the picture.
    """
    (height, width), (part_height, part_width) = maps.size, kept
    if not (0 < part_height <= height and 0 < part_width <= width):
        raise BadArgument(f"A part of {part_width} x {part_height} pixels cannot be cut from {width} x {height}.")
    if picture is None and maps.picture is not None:
        picture = maps.picture[:part_height, :part_width]
    size = kept if picture is None else (picture.shape[0], picture.shape[1])
    share = (part_height / height, part_width / width)
    cut = maps if kept == maps.size else maps.each_side(lambda side: _cut_side(side, share))
    return dataclasses.replace(cut, size=size, picture=picture)


def _cut_side(side: RecordedImage, share: tuple[float, float]) -> RecordedImage:
    detail = side.detail
    return dataclasses.replace(
        side,
        sums=_cut_maps(side.sums, share),
        time_weighted=_cut_maps(side.time_weighted, share),
        detail=None if detail is None else Detail(_cut_maps(detail.values, share), detail.layers, detail.by_step),
        heads=None if side.heads is None else {i: _cut(x, share) for i, x in side.heads.items()},
        self_attention=None if side.self_attention is None else _cut_self(side.self_attention, share),
        relations=None,
        output=None if side.output is None else _cut_output(side.output, share),
    )


def _cut_output(output: OutputSpace, share: tuple[float, float]) -> OutputSpace:
    """Scores among the positions of the part, and the affinity of mixtures of outputs, at length 1 again."""
    affinity = {}
    for (h, w), x in output.affinity.items():
        frame = torch.kron(mixture(h, share[0]), mixture(w, share[1]))
        with full_precision(x.device):
            mixed = frame @ x @ frame.T
        length = mixed.diagonal().clamp_min(1e-12).sqrt()
        affinity[h, w] = mixed / length / length[:, None]
    return dataclasses.replace(output, scores=_cut_maps(output.scores, share), affinity=affinity)


def _cut_maps(maps: Mapping[Grid, Tensor], share: tuple[float, float]) -> dict[Grid, Tensor]:
    return {grid: _cut(x, share) for grid, x in maps.items()}


def _cut(x: Tensor, share: tuple[float, float]) -> Tensor:
    """Maps `[..., h, w]` of the whole as maps `[..., h, w]` of the part, in their own dtype."""
    rows, columns = (mixture(side, part) for side, part in zip(x.shape[-2:], share, strict=True))
    with full_precision(x.device):
        return (rows @ x.float() @ columns.T).to(x.dtype)


def _cut_self(attention: Mapping[Grid, Tensor], share: tuple[float, float]) -> dict[Grid, Tensor]:
    """Self-attention `[n, n]` (query, key) among the positions of the part; rows sum to 1 again."""
    cut = {}
    for (h, w), x in attention.items():
        frame = torch.kron(mixture(h, share[0]), mixture(w, share[1]))
        both = torch.kron(torch.eye(len(x) // (h * w)), frame)  # of a video, its frames one after the other
        with full_precision(x.device):
            mixed = both @ x @ both.T
        cut[(h, w)] = mixed / mixed.sum(-1, keepdim=True).clamp_min(1e-12)
    return cut


def mixture(side: int, share: float) -> Tensor:
    """float32 `[side, side]`: each of `side` positions over the first `share` of an axis as a mixture of the old positions.

    Rows are not negative and sum to 1; `share` 1 is the identity.
    """
    centre = ((torch.arange(side, dtype=torch.float64) + 0.5) * share - 0.5).clamp(0, side - 1)
    below = centre.floor().long()
    above = (below + 1).clamp_max(side - 1)
    weight = centre - below
    made = torch.zeros(side, side, dtype=torch.float64)
    made.scatter_add_(1, below[:, None], (1 - weight)[:, None])
    made.scatter_add_(1, above[:, None], weight[:, None])
    return made.float()
