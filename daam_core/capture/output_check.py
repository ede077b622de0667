"""Whether what an attention gave out is what its queries and keys give: a few queries are computed again and compared.

A temperature can hide in the output: where nearly all attention is on one key, or all values are alike, queries three times
as large give nearly the same numbers, and other maps. So three things are held against each other: how far the output lies
from `O = softmax(s Q K^T + bias) V`, how far that part of it which differs between queries does, and how far it is moved along
`dO / d log t` of `softmax(t s Q K^T + bias) V`: a fit over thousands of numbers finds `t` far below the kernels' own rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.precision import full_precision
from ..attention.scores import temporary_bytes
from .attention_call import AttentionCall

QUERIES = 16
"""So many queries of each row are computed again."""
FAR = 0.05
"""Length of the difference from O, as a share of O's, up to which it counts as a kernel's rounding. Kernels with queries and
keys of 8 bits and values and probabilities of fp8 (SageAttention 2) come to 0.037, bfloat16 to 0.012; those of 4 bits lie
beyond it."""
FAR_BETWEEN = 0.25
"""The same of that part which differs between queries, as a share of O's."""
ROUNDING = 0.006
"""Difference, as a share of O's whole length, below which that part says nothing."""
TEMPERATURE = 0.12
"""Largest |log t|, as far as it can be told; such kernels come to 0.045, and a factor of 1.5 is 0.41."""
CLEAR = 0.5
"""How far the output is moved along the slope, as a share of what neither O nor slope explains, from which on t is told."""

_TINY = 1e-30


@dataclass(eq=False)
class ExpectedOutput:
    """What an attention has to give out at some of its queries.

    Attributes:
        rows: of the batch.
        queries: int64 `[m]`, which queries.
        shape: of what it gives out: batch, heads, queries, d.
        output: O, float32 `[rows, heads, m, d]`.
        slope: dO / d log t, as `output`.
    """

    rows: Sequence[int]
    queries: Tensor
    shape: tuple[int, int, int, int]
    output: Tensor
    slope: Tensor

    def fits(self, given: Tensor) -> bool:
        """Whether `alike` can be asked."""
        batch, heads, n, d = self.shape
        return tuple(given.shape) in ((batch, heads, n, d), (batch, n, heads * d))

    def alike(self, given: Tensor) -> Tensor:
        """Whether what the attention gave out, `[batch, heads, n, d]` or `[batch, n, heads * d]`, is that: bool, no axes,
        on its device. A factor on all of it is none of the attention's."""
        given = given if given.dim() == 4 else given.unflatten(-1, (self.shape[1], -1)).transpose(1, 2)
        found = given.detach()[list(self.rows)].index_select(2, self.queries).float()
        usable = self.output.isfinite().all(-1, keepdim=True)  # a query that may attend to nothing has no output
        found, output, slope = (torch.where(usable, x, 0) for x in (found, self.output, self.slope))
        factor, along = _fit(found, output, slope)
        rest = found - factor * output - along * slope
        size = factor * output.norm()
        unlike = (rest - rest.mean(2, keepdim=True)).norm()
        between = factor * (output - output.mean(2, keepdim=True)).norm()
        untold = (along * slope).norm() <= CLEAR * rest.norm()
        return (
            (factor > 0)
            & (untold | (along.abs() <= TEMPERATURE * factor))
            & (rest.norm() <= FAR * size)
            & (unlike <= FAR_BETWEEN * between + ROUNDING * size)
        )


def expected_output(a: AttentionCall, v: Tensor, rows: Sequence[int], offset: int = 0) -> ExpectedOutput:
    """O and its slope at `QUERIES` queries, evenly spread from `offset` on, of some rows of the batch.

    Args:
        v: the values as ComfyUI's attention functions get them: `[batch, key heads, keys, d]`, `[batch, keys, key heads * d]`
            or, where q and k are `[batch, n, heads * d]`, `[batch, keys, heads, d]`.
    """
    packed, a = a.packed_heads, a.heads_apart()
    if v.dim() == 3:
        v = v.unflatten(-1, (a.k.shape[1], -1)).transpose(1, 2)
    elif packed:
        v = v.transpose(1, 2)
    count = min(QUERIES, a.queries)
    places = torch.arange(count, device=a.q.device) * a.queries // count
    places = (places + offset) % a.queries
    found = [[_of_heads(a, v, row, places, heads) for heads in _head_slices(a, v)] for row in rows]
    output, slope = (torch.stack([torch.cat([x[i] for x in row]) for row in found]) for i in (0, 1))
    return ExpectedOutput(rows, places, (a.batch, a.heads, a.queries, v.shape[-1]), output, slope)


def _head_slices(a: AttentionCall, v: Tensor) -> list[slice]:
    """Cut the key heads so that the float32 copies of their keys and values stay inside the budget."""
    heads = a.k.shape[1]
    step = max(1, temporary_bytes(a.k.device) // (4 * a.keys * (a.k.shape[-1] + v.shape[-1])))
    return [slice(i, min(i + step, heads)) for i in range(0, heads, step)]


def _of_heads(a: AttentionCall, v: Tensor, row: int, places: Tensor, heads: slice) -> tuple[Tensor, Tensor]:
    """(O, dO / d log t) of some key heads of a row, with all their queries' heads, `[heads, m, d]`."""
    group = a.heads // a.k.shape[1]
    of_queries = slice(heads.start * group, heads.stop * group)
    q = a.q.detach()[row, of_queries].index_select(1, places).float().unflatten(0, (-1, group)).flatten(1, 2)
    k, v = a.k.detach()[row, heads].float(), v.detach()[row, heads].float()
    with full_precision(q.device):
        scores = (q @ k.transpose(1, 2)).unflatten(1, (group, -1)).flatten(0, 1) * a.scale  # [heads, m, keys]
        p = (scores if a.bias is None else scores + _bias_of(a.bias, row, of_queries, places)).softmax(-1)
        moved = p * (scores - (p * scores).sum(-1, keepdim=True))
        both = torch.stack((p, moved)).unflatten(1, (-1, group)).flatten(2, 3) @ v
        output, slope = both.unflatten(2, (group, -1)).flatten(1, 2)
    return output, slope


def _bias_of(bias: Tensor, row: int, heads: slice, places: Tensor) -> Tensor:
    """float32, broadcastable to `[heads, m, keys]`."""
    bias = bias[0 if bias.shape[0] == 1 else row]
    bias = bias if bias.shape[0] == 1 else bias[heads]
    return bias if bias.shape[1] == 1 else bias.index_select(1, places)


def _fit(found: Tensor, output: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of `output` and `slope` whose sum lies nearest to `found`."""
    oo, os, ss = (output * output).sum(), (output * slope).sum(), (slope * slope).sum()
    fo, fs = (found * output).sum(), (found * slope).sum()
    left = ss - os * os / oo.clamp_min(_TINY)
    along = torch.where(left > 1e-6 * ss, (fs - fo * os / oo.clamp_min(_TINY)) / left.clamp_min(_TINY), 0.0)
    return (fo - along * os) / oo.clamp_min(_TINY), along
