"""Joint attention, whose keys are text and picture, summed over heads: F of Eq. 6, and the picture's attention to itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .cells import Cells
from .precision import full_precision
from .scores import probabilities, query_slices, split_heads, step_budget


def add_joint(
    into: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    heads: int,
    scale: float,
    text: slice,
    bias: Tensor | None = None,
    lse: Tensor | None = None,
    budget: int | None = None,
    per_head: Tensor | None = None,
) -> None:
    """As `add_head_sum` of one layer, for joint attention, whose keys are text and picture: normalised over ALL keys.

    Args:
        into: `[images, n, channels]` float32 running sum.
        q: the picture's queries, `[images, n, heads * d]` or `[images, heads, n, d]`.
        k: all keys, `[images, keys, heads * d]` or `[images, heads, keys, d]`.
        selection: `[images, text, channels]` float32, for the text columns alone.
        heads: number of attention heads.
        scale: factor on the scores.
        text: which keys are text.
        bias: what the model adds to its scores, broadcastable to `[images, heads, n, keys]`.
        lse: float32 `[images, heads, n]`, log of the sum of exp(scores) over all keys, where the model's own attention
            gave it away: then only the text columns are computed.
        budget: bytes the temporaries may take; None is at most 64 MB.
        per_head: `[images * heads, n, channels]` float32 running sums of the heads apart, where they are kept.
    """
    apart = None if per_head is None else selection.repeat_interleave(heads, 0)
    for cut, p in _probabilities(q, k, heads, scale, text, bias, lse, budget):
        into[:, cut].baddbmm_(p.sum(1), selection)
        if per_head is not None and apart is not None:
            per_head[:, cut].baddbmm_(p.flatten(0, 1), apart)


def add_joint_steps(
    into: Tensor, q: Sequence[Tensor], k: Sequence[Tensor], selection: Tensor, scale: float, text: slice, weights: Tensor
) -> None:
    """`into[i] += sum over steps j of weights[i, j] (sum over heads l of softmax(Q_jl K_jl^T)[text] S)`, in place.

    Args:
        into: `[sums, 1, n, channels]` float32 running sums of one picture.
        q: the picture's queries of each step, `[layers, heads, n, d]`, any float dtype.
        k: all keys of each step, `[layers, key heads, keys, d]`; of grouped keys, several heads read one.
        selection: `[1, text, channels]` float32, for the text columns alone.
        scale: factor on the scores.
        text: which keys are text.
        weights: `[sums, steps]` float32.
    """
    (layers, heads, n, _), (_, of_keys, keys, _), device = q[0].shape, k[0].shape, q[0].device
    each = layers * heads
    some = max(1, step_budget(device) // (4 * each * n * keys))
    all_q, all_k = torch.stack(list(q)).float(), torch.stack(list(k)).float()
    all_k = all_k if of_keys == heads else all_k.repeat_interleave(heads // of_keys, 2)
    all_q, all_k = all_q.flatten(0, 2), all_k.flatten(0, 2)
    total = torch.empty(len(q), n, text.stop - text.start, device=device)
    room = torch.empty(0, device=device)
    with full_precision(device):
        for first in range(0, len(q), some):
            own = slice(first, first + some)
            own_q, own_k = (x[first * each : (first + some) * each] for x in (all_q, all_k))
            for cut in query_slices(own_q, own_k):
                size = len(own_q) * (cut.stop - cut.start) * keys
                if len(room) < size:  # fresh memory for each slice would cost as much as the exponentials
                    room = torch.empty(size, device=device)
                p = probabilities(own_q[:, cut], own_k, scale, room[:size], text)
                total[own, cut] = p.unflatten(0, (-1, each)).sum(1)
        weighted = (weights @ total.flatten(1)).unflatten(1, total.shape[1:])
        into.flatten(0, 1).baddbmm_(weighted, selection.expand(len(into), -1, -1))


def add_joint_self(
    into: Tensor,
    q: Tensor,
    k: Tensor,
    cells: Cells,
    heads: int,
    scale: float,
    picture: slice,
    bias: Tensor | None = None,
    lse: Tensor | None = None,
    budget: int | None = None,
) -> None:
    """`into += sum over heads of softmax(Q_l K_l^T)`: the query in the middle of each cell, the mean over the keys of each.

    Args:
        into: `[images, cells, cells]` float32 (query, key) running sum.
        q: the picture's queries, `[images, heads, n, d]`, one for each position of the cells' grid.
        picture: which keys are the picture's, one for each position.

    The rest is as for `add_joint`: normalised over ALL keys.
    """
    if not cells.are_positions:
        middle = cells.centres(q.device)
        q = q.index_select(2, middle)
        lse = lse if lse is None else lse.index_select(2, middle)
        bias = bias if bias is None or bias.shape[-2] == 1 else bias.index_select(2, middle)
    for cut, p in _probabilities(q, k, heads, scale, picture, bias, lse, budget):
        into[:, cut] += cells.mean(p.sum(1))


def add_text_queries(
    to_image: Tensor | None,
    to_text: Tensor | None,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    cells: Cells,
    heads: int,
    scale: float,
    picture: slice,
    text: slice,
    bias: Tensor | None = None,
    lse: Tensor | None = None,
    budget: int | None = None,
) -> None:
    """What the text's queries attend to in the picture and in the text, summed over heads, in place.

    Args:
        to_image: `[images, cells, channels]` float32 running sum of a channel's queries: the mean over the keys of a cell.
        to_text: `[images, channels, channels]` float32 running sum (query, key).
        q: the text's queries, `[images, heads, text, d]`.
        k: all keys, `[images, heads, keys, d]`.
        selection: `[images, text, channels]` float32, for the text's tokens alone.
        cells: of the picture's grid.
        picture: which keys are the picture's, of all its frames; frames are summed.
        text: which keys are the text's, one for each query.

    The rest is as for `add_joint`: normalised over ALL keys.
    """
    n = cells.grid[0] * cells.grid[1]
    for cut, of_heads in _probabilities(q, k, heads, scale, slice(0, k.shape[-2]), bias, lse, budget):
        own, p = selection[:, cut], of_heads.sum(1)
        if to_image is not None:
            on_picture = cells.mean(p[..., picture].unflatten(-1, (-1, n)).sum(-2))
            to_image.baddbmm_(on_picture.transpose(1, 2), own)
        if to_text is not None:
            to_text.baddbmm_(own.transpose(1, 2), p[..., text] @ selection)


def _probabilities(
    q: Tensor, k: Tensor, heads: int, scale: float, wanted: slice, bias: Tensor | None, lse: Tensor | None, budget: int | None
) -> Iterator[tuple[slice, Tensor]]:
    """Slice by slice (which queries, their probabilities on the `wanted` keys, float32 `[images, heads, m, wanted]`),
    normalised over all keys."""
    images = q.shape[0]
    with full_precision(q.device):
        queries, keys = split_heads(q, heads), split_heads(k, heads)
        keys = keys if lse is None else keys[:, wanted]
        for cut in query_slices(queries, keys, budget):
            part_of = queries[:, cut]
            scores = torch.baddbmm(part_of.new_empty(()), part_of, keys.transpose(1, 2), beta=0, alpha=scale)
            scores = scores.unflatten(0, (images, heads))
            if bias is not None:
                part = bias if bias.shape[-2] == 1 else bias[..., cut, :]
                scores += part if lse is None or part.shape[-1] == 1 else part[..., wanted]
            # In place: on a processor fresh memory costs as much as the softmax.
            own = None if lse is None else lse[:, :, cut, None]
            p = torch.softmax(scores, -1, out=scores)[..., wanted] if own is None else scores.sub_(own).exp_()
            if bias is not None and lse is None and part.shape[-2] > 1:  # a query that may attend to nothing
                p = p.masked_fill(torch.isneginf(part).all(-1, keepdim=True), 0)
            yield cut, p
