"""Softmax columns of joint attention, where keys are text and picture, summed over heads: F of Eq. 6."""

from __future__ import annotations

import torch
from torch import Tensor

from .scores import full_precision, query_slices, split_heads


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
    """
    images = into.shape[0]
    with full_precision(q.device):
        queries, keys = split_heads(q, heads), split_heads(k, heads)
        wanted = keys if lse is None else keys[:, text]
        for cut in query_slices(queries, wanted, budget):
            scores = torch.matmul(queries[:, cut], wanted.transpose(1, 2)).mul_(scale).unflatten(0, (images, heads))
            if bias is not None:
                part = bias if bias.shape[-2] == 1 else bias[..., cut, :]
                scores += part if lse is None else part[..., text]
            p = torch.softmax(scores, -1)[..., text] if lse is None else torch.exp_(scores - lse[:, :, cut, None])
            into[:, cut].baddbmm_(p.sum(1), selection)
