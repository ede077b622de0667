"""Softmax columns of Q K^T, summed over heads: the F of the paper's Eq. 6, as pure functions on queries and keys.

Four kernel launches a call (scores, softmax, head sum, column selection with accumulation), no Python loop over heads or
tokens, no synchronisation with the device. All maths is float32, whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .precision import full_precision

_EVERY = slice(None)
TEMPORARY_BYTES = 64 * 2**20
"""Upper bound of the temporaries of one call; longer query sequences are worked off in slices."""
CPU_BYTES = 8 * 2**20
"""The same on a processor: what fits its cache and its allocator's own memory is worked off up to twice as fast."""
_TOGETHER = 24
"""So many heads are summed by one product: it adds them one after the other, and of more of them it would round more."""
_NAIVE = 400
"""PyTorch sends products of fewer multiplications than these to a plain loop, which is slow over a transposed matrix."""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[images, n, heads * d]` or `[images, heads, n, d]` -> float32 `[images * heads, n, d]`; a view where it can be."""
    x = x.detach().float()
    return x.flatten(0, 1) if x.dim() == 4 else x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def probabilities(q: Tensor, k: Tensor, scale: float, room: Tensor | None = None, wanted: slice = _EVERY) -> Tensor:
    """Attention probabilities normalised over ALL keys.

    On a processor exponentials are taken of the scores as they are: PyTorch's softmax, which takes off each row's largest
    first, takes four times as long. Where a row's sum shows that they were too large or too small for that, it is used.

    Args:
        q: `[batch, n, d]` float32 queries.
        k: `[batch, keys, d]` float32 keys.
        scale: factor on the scores, `1 / sqrt(d)` in Stable Diffusion.
        room: memory of `batch * n * keys` numbers to work in; None for fresh memory.
        wanted: which keys are asked for.

    Returns:
        `[batch, n, wanted]` float32; over all keys every row sums to 1.
    """
    if q.device.type == "cpu":
        p = _scores(q, k, scale, room).exp_()
        total = p.sum(-1, keepdim=True)
        if _are_exact(total):
            return p[..., wanted].div_(total)
    result = _scores(q, k, scale, room)
    return torch.softmax(result, -1, out=result)[..., wanted]


def _scores(q: Tensor, k: Tensor, scale: float, room: Tensor | None) -> Tensor:
    given = {} if room is None else {"out": room.view(q.shape[0], q.shape[1], k.shape[1])}
    return torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale, **given)


def _head_sums(q: Tensor, k: Tensor, scale: float, images: int, heads: int, room: Tensor | None = None) -> Tensor:
    """`probabilities` summed over layers and heads, `[images, n, keys]`; arguments as for `add_head_sum`, but of one picture
    `q` and `k` may be of any number of heads.

    Of one picture, on a processor, a product divides each head by its sums and adds the heads up: dividing and adding are two
    passes over memory, and take as long as scores and exponentials.
    """
    if images == 1 and q.device.type == "cpu" and min(len(q), _TOGETHER) * k.shape[1] >= _NAIVE:
        p = _scores(q, k, scale, room).exp_()
        total = p.sum(-1)
        if _are_exact(total):
            shares, of_position = total.reciprocal_(), p.transpose(0, 1)
            part = _even_part(len(q))
            sums = [
                # The product is several times slower where this one is not contiguous.
                shares[i : i + part].t().contiguous()[:, None] @ of_position[:, i : i + part]
                for i in range(0, len(q), part)
            ]
            return sum(sums[1:], sums[0]).transpose(0, 1)
    found = probabilities(q, k, scale, room)
    return found.sum(0, keepdim=True) if images == 1 else found.unflatten(0, (-1, images, heads)).sum((0, 2))


def _even_part(heads: int) -> int:
    """How many of so many heads are summed by one product, in parts that are nearly alike."""
    return -(-heads // -(-heads // _TOGETHER))


def _are_exact(totals: Tensor) -> bool:
    """Whether sums of exponentials are far from where numbers overflow or lose digits; there and where they are none, False."""
    sums = totals.numpy()  # on a processor nothing waits for it
    return bool(sums.min(initial=1.0) > 1e-25 and sums.max(initial=1.0) < 1e30)


def temporary_bytes(device: torch.device) -> int:
    """How much the temporaries of one call may take on a device."""
    return CPU_BYTES if device.type == "cpu" else TEMPORARY_BYTES


def query_slices(q: Tensor, k: Tensor, budget: int | None = None) -> list[slice]:
    """Cut the queries `[batch, n, d]` so that the temporaries of each cut stay inside the budget."""
    batch, n = q.shape[:2]
    budget = budget or temporary_bytes(q.device)
    step = max(1, min(n, budget // (8 * batch * k.shape[1])))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _in_slices(q: Tensor, k: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """(which queries, their `probabilities`), slice by slice."""
    for cut in query_slices(q, k):
        yield cut, probabilities(q[:, cut], k, scale)


def add_head_sum(into: Tensor, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float) -> None:
    """`into += sum over heads l of softmax(Q_l K_l^T) S`: a step's share of Eq. 6 of one layer or several, in place.

    Args:
        into: `[images, n, channels]` float32 running sum.
        q: `[layers * images * heads, n, d]` float32, see `split_heads`.
        k: `[layers * images * heads, keys, d]` float32.
        selection: S, `[images, keys, channels]` float32 of zeros and ones: which key columns make up which channel.
        heads: attention heads of one layer.
        scale: factor on the scores.
    """
    with full_precision(q.device):
        for cut in query_slices(q, k):
            into[:, cut].baddbmm_(_head_sums(q[:, cut], k, scale, len(into), heads), selection)


def add_weighted_head_sums(
    into: Tensor, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float, weights: Tensor
) -> None:
    """`into[i] += sum over layers m of weights[i, m] (sum over heads l of softmax(Q_ml K_ml^T) S)`, in place.

    Args:
        into: `[sums, images, n, channels]` float32 running sums.
        weights: `[sums, layers]` float32.

    The rest is as for `add_head_sum`.
    """
    sums, images = into.shape[:2]
    channels, selections = into.flatten(0, 1), selection.repeat(sums, 1, 1)
    per_head = weights.repeat_interleave(heads, 1)
    with full_precision(q.device):
        for cut, p in _in_slices(q, k, scale):
            if images == 1:  # layers and heads side by side: one product sums and weighs them
                weighted = (per_head @ p.flatten(1)).unflatten(1, p.shape[1:])
            else:
                summed = p.unflatten(0, (-1, images, heads)).sum(2)
                weighted = (weights @ summed.flatten(1)).unflatten(1, summed.shape[1:]).flatten(0, 1)
            channels[:, cut].baddbmm_(weighted, selections)


def add_step_sums(
    into: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    heads: int,
    scale: float,
    weights: Tensor,
    scratch: Tensor | None = None,
) -> None:
    """`into[i] += sum over steps j of weights[i, j] (sum over layers and heads l of softmax(Q_jl K_l^T) S)`, in place: the keys
    are the same in every step.

    Args:
        into: `[sums, images, n, channels]` float32 running sums.
        q: `[layers * images * heads, steps, n, d]` float32.
        k: `[layers * images * heads, keys, d]` float32.
        weights: `[sums, steps]` float32.
        scratch: float32, any numbers, see `step_scratch`: used again and again it spares a processor fresh memory, whose pages
            cost as much as the softmax. None for memory of its own.

    The rest is as for `add_head_sum`.
    """
    sums, images, n = into.shape[:3]
    steps, keys, each = q.shape[1], k.shape[1], images * heads
    queries = q.flatten(1, 2)
    part = _even_part(len(q)) if images == 1 else each * max(1, _TOGETHER // each)
    numbers = step_budget(q.device) // 4 if scratch is None else len(scratch)
    rows = max(1, numbers // (part * keys))
    total = torch.zeros(images, steps * n, keys, device=q.device)
    with full_precision(q.device):
        for first in range(0, len(q), part):
            own_k = k[first : first + part]
            for start in range(0, steps * n, rows):
                own = queries[first : first + part, start : start + rows]
                room = None if scratch is None else scratch[: own.shape[0] * own.shape[1] * keys]
                total[:, start : start + rows] += _head_sums(own, own_k, scale, images, heads, room)
        # Summed before it is weighed: a product over all heads, layers and steps rounds more.
        weighted = (weights @ total.view(images, steps, -1)).transpose(0, 1).flatten(0, 1)
        into.flatten(0, 1).baddbmm_(weighted.unflatten(1, (n, keys)), selection.repeat(sums, 1, 1))


def step_budget(device: torch.device) -> int:
    """Bytes of scores that several steps at once may take: on a processor what fits its own cache."""
    return CPU_BYTES // 8 if device.type == "cpu" else TEMPORARY_BYTES


def step_scratch(k: Tensor, heads: int, steps: int, n: int) -> Tensor | None:
    """Memory for `add_step_sums` of up to so many steps, `heads` of one layer in all its pictures; None where fresh memory
    costs nothing, as on a GPU."""
    if k.device.type != "cpu":
        return None
    together = min(len(k), max(heads, _TOGETHER))
    return torch.empty(together * k.shape[1] * max(1, min(steps * n, step_budget(k.device) // (4 * together * k.shape[1]))))


def add_self_attention(into: Tensor, q: Tensor, k: Tensor, heads: int, scale: float) -> None:
    """`into += sum over heads of softmax(Q_l K_l^T)`, `into` `[images, n, n]` float32 (query, key), in place.

    The rest is as for `add_head_sum`.
    """
    with full_precision(q.device):
        for cut in query_slices(q, k):
            into[:, cut] += _head_sums(q[:, cut], k, scale, len(into), heads)


def add_per_head(into: Tensor, q: Tensor, k: Tensor, selection: Tensor, heads: int, scale: float) -> None:
    """As `add_head_sum` for one layer, with the heads kept apart: `into` is `[images * heads, n, channels]`."""
    with full_precision(q.device):
        per_head = selection.repeat_interleave(heads, 0)
        for cut, p in _in_slices(q, k, scale):
            into[:, cut].baddbmm_(p, per_head)
