"""Softmax columns of Q K^T, summed over heads: the F of the paper's Eq. 6, as pure functions on raw projections.

Four kernel launches a call (scores, softmax, head sum, column selection with accumulation), no Python loop over heads or
tokens, no synchronisation with the device. All maths is float32, whatever the model's dtype.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

TEMPORARY_BYTES = 64 * 2**20
"""Upper bound of the temporaries of one call; longer query sequences are worked off in slices."""
_CPU_BYTES = 8 * 2**20
"""The same on a processor: what fits its cache and its allocator's own memory is worked off up to twice as fast."""


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast would silently run our float32 matmuls in half precision."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[images, n, heads * d]` or `[images, heads, n, d]` -> float32 `[images * heads, n, d]`; a view where it can be."""
    if x.dim() == 4:
        return x.float().flatten(0, 1)
    return x.float().unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def probabilities(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Attention probabilities normalised over ALL keys.

    Args:
        q: `[batch, n, d]` float32 queries.
        k: `[batch, keys, d]` float32 keys.
        scale: factor on the scores, `1 / sqrt(d)` in Stable Diffusion.

    Returns:
        `[batch, n, keys]` float32, every row sums to 1.
    """
    scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    return torch.softmax(scores, -1, out=scores)


def _slices(n: int, bytes_per_query: int, budget: int | None, device: torch.device) -> list[slice]:
    """Cut `n` queries so that the temporaries of each cut stay inside the budget."""
    budget = budget or (_CPU_BYTES if device.type == "cpu" else TEMPORARY_BYTES)
    step = max(1, min(n, budget // bytes_per_query))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def add_head_sum(
    into: Tensor, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float, budget: int | None = None
) -> None:
    """`into += sum over heads l of softmax(Q_l K_l^T) S`: one layer's and step's share of Eq. 6, in place.

    Args:
        into: `[images, n, rows]` float32 running sum.
        q: `[images, n, heads * d]` or `[images, heads, n, d]`, any float dtype.
        k: `[images, keys, heads * d]` or `[images, heads, keys, d]`.
        selection: S, `[images, keys, rows]` float32 of zeros and ones: which key columns make up which row.
        heads: number of attention heads.
        scale: factor on the scores.
        budget: bytes the temporaries may take; None is at most 64 MB.
    """
    images, n = into.shape[:2]
    with _full_precision(q.device):
        keys = split_heads(k.detach(), heads)
        queries = split_heads(q.detach(), heads)
        for cut in _slices(n, 8 * images * heads * keys.shape[1], budget, q.device):
            p = probabilities(queries[:, cut], keys, scale)
            into[:, cut].baddbmm_(p.unflatten(0, (images, heads)).sum(1), selection)


def add_per_head(
    into: Tensor, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float, budget: int | None = None
) -> None:
    """As `add_head_sum`, with the heads kept apart: `into` is `[images * heads, n, rows]`."""
    images, n = q.shape[:2]
    with _full_precision(q.device):
        keys = split_heads(k.detach(), heads)
        queries = split_heads(q.detach(), heads)
        per_head = selection.repeat_interleave(heads, 0)
        for cut in _slices(n, 8 * images * heads * k.shape[1], budget, q.device):
            into[:, cut].baddbmm_(probabilities(queries[:, cut], keys, scale), per_head)


def add_self_attention(
    into: Tensor, q: Tensor, k: Tensor, heads: int, scale: float, budget: int | None = None
) -> None:
    """`into += sum over heads of softmax(Q_l K_l^T)`, `into` `[images, n, n]` float32 (query, key), in place.

    q and k as for `add_head_sum`.
    """
    images, n = into.shape[:2]
    with _full_precision(q.device):
        keys = split_heads(k.detach(), heads)
        queries = split_heads(q.detach(), heads)
        for cut in _slices(n, 8 * images * heads * n, budget, q.device):
            into[:, cut] += probabilities(queries[:, cut], keys, scale).unflatten(0, (images, heads)).sum(1)


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
) -> None:
    """As `add_head_sum` for joint attention, whose keys are text and picture: normalised over ALL keys, in place.

    Args:
        into: `[images, n, rows]` float32 running sum.
        q: the picture's queries, `[images, n, heads * d]` or `[images, heads, n, d]`.
        k: all keys, `[images, keys, heads * d]` or `[images, heads, keys, d]`.
        selection: `[images, text, rows]` float32, for the text columns alone.
        heads: number of attention heads.
        scale: factor on the scores.
        text: which keys are text.
        bias: what the model adds to its scores, broadcastable to `[images, heads, n, keys]`.
        lse: float32 `[images, heads, n]`, log of the sum of exp(scores) over all keys, where the model's own attention
            gave it away: then only the text columns are computed.
        budget: bytes the temporaries may take; None is at most 64 MB.
    """
    images = into.shape[0]
    with _full_precision(q.device):
        queries, keys = split_heads(q.detach(), heads), split_heads(k.detach(), heads)
        wanted = keys if lse is None else keys[:, text]
        for cut in _slices(queries.shape[1], 8 * images * heads * wanted.shape[1], budget, q.device):
            scores = torch.matmul(queries[:, cut], wanted.transpose(1, 2)).mul_(scale).unflatten(0, (images, heads))
            if bias is not None:
                part = bias if bias.shape[-2] == 1 else bias[..., cut, :]
                scores += part if lse is None else part[..., text]
            p = torch.softmax(scores, -1)[..., text] if lse is None else torch.exp_(scores - lse[:, :, cut, None])
            into[:, cut].baddbmm_(p.sum(1), selection)
