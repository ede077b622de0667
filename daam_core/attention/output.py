"""Attention in output space: what an attention gives out, `O = softmax(Q K^T) V`, held against what it would give for a word.

`O` is read as the model computed it, ahead of the projection behind it, its heads side by side: nothing is attended twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cells import Cells
from .precision import full_precision
from .scores import temporary_bytes


def heads_beside(x: Tensor) -> Tensor:
    """`[batch, heads, n, d]` or `[batch, n, heads * d]` -> `[batch, n, heads * d]` in its own dtype; a view where it can be."""
    x = x.detach()
    return x.transpose(1, 2).flatten(2) if x.dim() == 4 else x


def add_output_scores(into: Tensor, output: Tensor, values: Tensor, selection: Tensor, budget: int | None = None) -> None:
    """`into[i, c] += sum over the text's keys k of <O[i], V_k> S[k, c]`, in place; the product runs over all heads at once.

    Args:
        into: `[images, n, channels]` float32 running sum.
        output: O, `[images, n, heads * d]`, see `heads_beside`.
        values: `[images, keys, heads * d]`: the values of the text's keys, or in joint attention O at the text's places.
        selection: S, `[images, keys, channels]` float32 of zeros and ones: which key makes up which channel.
        budget: bytes the temporaries may take; None is at most 64 MB.
    """
    with full_precision(output.device):
        of_channels = selection.transpose(1, 2) @ values.float()
        for cut in _slices(output, budget):
            into[:, cut].baddbmm_(output[:, cut].float(), of_channels.transpose(1, 2))


def add_affinity(into: Tensor, output: Tensor, cells: Cells, weight: float) -> None:
    """`into += weight * u u^T` with u the mean of O over each cell, brought to length 1, in place.

    Args:
        into: `[images, cells, cells]` float32 running sum.
        output: O, `[images, n, heads * d]`, one row for each position of the cells' grid.
        weight: of this layer and step.
    """
    with full_precision(output.device):
        unit = torch.nn.functional.normalize(_in_cells(output, cells), dim=-1)
        into.baddbmm_(unit, unit.transpose(1, 2), alpha=weight)


def _in_cells(output: Tensor, cells: Cells) -> Tensor:
    """float32 `[images, cells, heads * d]`, the mean of each cell; finer grids are worked off some channels at a time."""
    if cells.are_positions:
        return output.float()
    images, n, width = output.shape
    rows, columns = (_axis_means(*sides, output.device) for sides in zip(cells.grid, cells.shape, strict=True))
    step = width if output.dtype == torch.float32 else max(1, temporary_bytes(output.device) // (4 * images * n))
    found = []
    for part in output.split(step, -1):
        # Along each axis by itself: the library's pooling goes through positions that are rows ten times more slowly.
        lines = (rows @ part.float().unflatten(1, cells.grid).flatten(2)).unflatten(2, (cells.grid[1], -1))
        found.append((columns @ lines).flatten(1, 2))
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def _axis_means(size: int, count: int, device: torch.device) -> Tensor:
    """float32 `[count, size]`: the mean over each of so many even parts of an axis, as `adaptive_avg_pool2d` takes it."""
    position = torch.arange(size, device=device)
    part = torch.arange(count, device=device)[:, None]
    first = (part * size).div(count, rounding_mode="floor")
    last = ((part + 1) * size + count - 1).div(count, rounding_mode="floor")
    inside = ((position >= first) & (position < last)).float()
    return inside / inside.sum(1, keepdim=True)


def _slices(output: Tensor, budget: int | None) -> list[slice]:
    """Cut the positions so that each cut's float32 copy stays inside the budget; none where there is nothing to copy."""
    images, n, width = output.shape
    if output.dtype == torch.float32:
        return [slice(0, n)]
    step = max(1, min(n, (budget or temporary_bytes(output.device)) // (4 * images * width)))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]
