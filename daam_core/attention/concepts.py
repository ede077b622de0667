"""How much a picture's places attend to concepts that are not in the prompt: pure functions on queries and keys.

A concept is a text of its own; its keys are what the layer's `to_k` makes of it. A rule says which columns stand above and
which below the fraction: `P_c[i] = sum over its numerator of exp(s_ik) / sum over its denominator of exp(s_ik)`, with
`s_ik = scale * <q_i, k_k>`. Nothing is fed back into the model.

- "prompt": the concept's own columns over themselves and the prompt's words, less the words they share: where it is.
- "rivals": the same with other concepts in the denominator: whether it is there at all.
- "ovam": the concept's own columns over all columns of its own text (OVAM, Marcos-Manchón et al. 2024).
- "column": one more column beside the softmax over the whole context, which it does not take part in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .precision import full_precision
from .scores import query_slices, split_heads, temporary_bytes

ConceptRule = Literal["prompt", "ovam", "column"]
CONCEPT_RULES: tuple[ConceptRule, ...] = ("prompt", "ovam", "column")
"""Rules that a concept's map can be made by; the first is the product's own."""
_TEMPORARY = 2**25
"""So many bytes of a picture's outputs are brought to float32 at once."""
_CACHED = 2**21
"""On a processor so many bytes of scores are worked off at once: what follows finds them in its cache."""


@dataclass(frozen=True, eq=False)
class Below:
    """What stands below a fraction.

    Attributes:
        rows: of `Shares.matrix`, the sums that differ.
        of_concepts: int64 `[concepts]`, which of these is each concept's; None where all have the same.
        adds_own: whether the concept's own numerator is to be added.
    """

    rows: slice
    of_concepts: Tensor | None
    adds_own: bool


@dataclass(frozen=True, eq=False)
class Shares:
    """Which columns stand above and below each concept's fraction: all their sums by one product.

    Concepts differ in their own columns, and share nearly everything else that they are held against: each such sum is made
    once.

    Attributes:
        matrix: float32 `[concepts + sums, columns]` of zeros and ones; first the numerators.
        concepts: how many there are.
        below: of each denominator.
    """

    matrix: Tensor
    concepts: int
    below: tuple[Below, ...]

    @classmethod
    def of(
        cls,
        columns: int,
        numerator: Sequence[Set[int]],
        denominators: Sequence[Sequence[Set[int]]],
        device: torch.device | str = "cpu",
    ) -> Shares:
        """From the numbers of the columns, of `columns` in all, that stand above and below each concept's fraction."""
        rows = [frozenset(own) for own in numerator]
        below = []
        for one in denominators:
            beside: list[frozenset[int]] = [frozenset(d - own) for d, own in zip(one, numerator, strict=True)]
            whole = [frozenset(d) for d in one]
            adds_own = all(own <= d for own, d in zip(numerator, one, strict=True)) and len(set(beside)) <= len(set(whole))
            each = beside if adds_own else whole
            different = list(dict.fromkeys(each))
            index = None if len(different) == 1 else torch.tensor([different.index(x) for x in each], device=device)
            below.append(Below(slice(len(rows), len(rows) + len(different)), index, adds_own))
            rows += different
        matrix = torch.tensor([[float(column in row) for column in range(columns)] for row in rows], device=device)
        return cls(matrix, len(numerator), tuple(below))

    def to(self, device: torch.device) -> Shares:
        """The same on another device."""
        below = [
            Below(x.rows, x.of_concepts if x.of_concepts is None else x.of_concepts.to(device), x.adds_own) for x in self.below
        ]
        return Shares(self.matrix.to(device), self.concepts, tuple(below))


def fractions(scores: Tensor, shares: Shares) -> list[Tensor]:
    """`sum over N_c of exp(s_k) / sum over D_c of exp(s_k)` for each of several denominators D.

    Args:
        scores: float32 `[..., columns, n]`; worked on in place.
        shares: which columns N and D are, for each concept c.

    Returns:
        For each denominator float32 `[..., concepts, n]`; 0 where all of it lies 87 and more below the highest score.

    Example:
        >>> s = torch.tensor([[0.0], [0.0], [2.0]]).log1p()
        >>> fractions(s, Shares.of(3, [{2}], [[{1, 2}]]))
        [tensor([[0.7500]])]
    """
    weights = scores.sub_(scores.amax(-2, keepdim=True)).exp_()
    parts = shares.matrix @ weights
    own, found = parts[..., : shares.concepts, :], []
    for below in shares.below:
        rest = parts[..., below.rows, :]
        rest = rest if below.of_concepts is None else rest.index_select(-2, below.of_concepts)
        # In place wherever the place is ours: fresh memory costs a processor more than the arithmetic.
        if below.adds_own:
            rest = (own + rest).clamp_(min=torch.finfo(torch.float32).tiny)
            found.append(torch.div(own, rest, out=rest))
        else:
            found.append(own / rest.clamp(min=torch.finfo(torch.float32).tiny))
    return found


def add_fractions(into: Tensor, q: Tensor, k: Tensor, shares: Shares, heads: int, scale: float) -> None:
    """The share of some layers in a concept's map and in its presence, in place.

    `into[0] += sum over layers and heads of P_h` by the first denominator, which is the map. `into[1] += sum over layers and
    heads of var(P_h) P_h` by the second, which is the presence: `var(P_h)` is the variance of a head's fraction of one concept
    over the places. Most heads attend evenly, whatever is in the picture; those that tell places apart decide.

    Args:
        into: `[2, n, concepts]` float32 running sums of one picture, quickest where places lie side by side in memory.
        q: `[layers, n, heads * d]` queries of the picture.
        k: `[layers, columns, heads * d]` keys of the columns that take part.
        shares: see `fractions`; two denominators.
        heads, scale: of each layer.
    """
    total = into.transpose(1, 2)
    for _, place, presence in _of_heads(q, k, shares, heads, scale):
        total[0] += place.sum(0)
        total[1] += presence.sum(0)


def add_step_fractions(into: Tensor, q: Tensor, k: Tensor, shares: Shares, heads: int, scale: float, weights: Tensor) -> None:
    """The same of layers of several steps, in place: `into[i, j] += sum over layers m of weights[j, i, m]` times what
    `add_fractions` adds to `into[j]`.

    Args:
        into: `[sums, 2, n, concepts]` float32 running sums of one picture.
        weights: float32 `[2, sums, layers]`: of the map, of the presence.

    The rest is as for `add_fractions`.
    """
    total, per_head = into.transpose(2, 3), weights.repeat_interleave(heads, 2)
    for some, *both in _of_heads(q, k, shares, heads, scale):
        for part, (own, found) in enumerate(zip(per_head, both, strict=True)):
            total[:, part] += (own[:, some] @ found.flatten(1)).unflatten(1, found.shape[1:])


def _of_heads(q: Tensor, k: Tensor, shares: Shares, heads: int, scale: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which heads of all layers, their fractions P_h, their var(P_h) P_h), both float32 `[heads, concepts, n]`."""
    with full_precision(q.device):
        queries, keys = split_heads(q, heads), split_heads(k, heads) * scale
        budget = min(_CACHED, temporary_bytes(q.device)) if q.device.type == "cpu" else temporary_bytes(q.device)
        # A head's variance needs all its places: where there are many, heads are worked off in groups.
        numbers = keys.shape[1] + len(shares.matrix) + 3 * shares.concepts
        group = max(1, budget // (4 * numbers * queries.shape[1]))
        for first in range(0, len(queries), group):
            which = slice(first, min(first + group, len(queries)))
            some, own = queries[which], keys[which]
            found = [fractions(own @ some[:, cut].transpose(1, 2), shares) for cut in query_slices(some, own)]
            place, presence = found[0] if len(found) == 1 else (torch.cat(parts, -1) for parts in zip(*found, strict=True))
            yield which, place, presence.mul_(_variance(presence))


def _variance(x: Tensor) -> Tensor:
    """`[..., 1]` of the last axis; PyTorch's own takes fifteen times as long on a processor."""
    return (x - x.mean(-1, keepdim=True)).square_().mean(-1, keepdim=True)


def add_output_fractions(into: Tensor, o_picture: Tensor, o_texts: Tensor, shares: Shares) -> None:
    """One layer's share in a concept's map and presence in a joint model, in place: as `add_fractions`, of the products
    `<O[i], O_t>` of the attention's outputs, all heads side by side. `into[0] += P` by the first denominator, which is
    `output_fractions` where all concepts are in it; `into[1] += var(P) P` by the second.

    Args:
        into: `[2, n, concepts]` float32 running sums of one picture, quickest where places lie side by side in memory.
        o_picture: `[heads, n, d]` outputs at the picture's places.
        o_texts: float32 `[texts, heads * d]`, the mean output of each text's tokens.
        shares: see `fractions`; the columns are texts; two denominators.
    """
    rows, found = max(1, _TEMPORARY // (4 * o_texts.shape[1])), []
    total = into.transpose(1, 2)
    with full_precision(o_picture.device):
        for part in o_picture.split(rows, 1):
            own = part.transpose(0, 1).flatten(1).float()
            found.append(fractions(o_texts @ own.T, shares))
        place, presence = found[0] if len(found) == 1 else (torch.cat(parts, -1) for parts in zip(*found, strict=True))
        total[0] += place
        total[1] += presence.mul_(_variance(presence))


def output_fractions(o_picture: Tensor, o_concepts: Tensor) -> Tensor:
    """ConceptAttention's score of joint models (Helbling et al. 2025, Eq. 6): the softmax over concepts of the products of the
    attention's outputs, `softmax_c <O[i], O_c>`.

    Args:
        o_picture: `[..., n, d]` outputs at the picture's places.
        o_concepts: `[..., concepts, d]` outputs of the concepts' stream.

    Returns:
        float32 `[..., n, concepts]`, each place's values add up to 1.

    Example:
        >>> output_fractions(torch.eye(2), torch.eye(2) * 3.0).argmax(-1)
        tensor([0, 1])
    """
    with full_precision(o_picture.device):
        return torch.softmax(o_picture.detach().float() @ o_concepts.detach().float().transpose(-1, -2), -1)
