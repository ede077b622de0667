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

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .scores import full_precision, query_slices, split_heads, temporary_bytes

ConceptRule = Literal["prompt", "ovam", "column"]
CONCEPT_RULES: tuple[ConceptRule, ...] = ("prompt", "ovam", "column")
"""Rules that a concept's map can be made by; the first is the product's own."""
_TEMPORARY = 2**25
"""So many bytes of a picture's outputs are brought to float32 at once."""


def fractions(scores: Tensor, numerator: Tensor, denominators: Sequence[Tensor]) -> Tensor:
    """`sum_k exp(s_k) N_kc / sum_k exp(s_k) D_kc` for several denominators D.

    Args:
        scores: float32 `[..., columns]`; worked on in place.
        numerator: N, float32 `[columns, concepts]` of zeros and ones.
        denominators: each D, `[columns, concepts]` likewise.

    Returns:
        float32 `[..., denominators, concepts]`; 0 where all of it lies 87 and more below the highest score.

    Example:
        >>> s = torch.tensor([[0.0, 0.0, 2.0]]).log1p()
        >>> n, d = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [1.0]])
        >>> fractions(s, n, [d])
        tensor([[[0.7500]]])
    """
    concepts = numerator.shape[1]
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    parts = (weights @ torch.cat([numerator, *denominators], 1)).unflatten(-1, (-1, concepts))
    return parts[..., :1, :] / parts[..., 1:, :].clamp_(min=torch.finfo(torch.float32).tiny)


def add_fractions(
    into: Tensor, q: Tensor, k: Tensor, numerator: Tensor, denominators: Sequence[Tensor], heads: int, scale: float
) -> None:
    """The share of some layers in a concept's map and in its presence, in place.

    `into[0] += sum over layers and heads of P_h` by the first denominator, which is the map. `into[1] += sum over layers and
    heads of var(P_h) P_h` by the second, which is the presence: `var(P_h)` is the variance of a head's fraction of one concept
    over the places. Most heads attend evenly, whatever is in the picture; those that tell places apart decide.

    Args:
        into: `[2, n, concepts]` float32 running sums of one picture.
        q: `[layers, n, heads * d]` queries of the picture.
        k: `[layers, columns, heads * d]` keys of the columns that take part.
        numerator, denominators: see `fractions`; two denominators.
        heads, scale: of each layer.
    """
    with full_precision(q.device):
        queries, keys = split_heads(q, heads), split_heads(k, heads)
        # A head's variance needs all its places: where there are many, heads are worked off in groups.
        group = max(1, temporary_bytes(q.device) // (8 * into[0].numel()))
        for first in range(0, len(queries), group):
            some, own_keys = queries[first : first + group], keys[first : first + group].transpose(1, 2)
            found = []
            for cut in query_slices(some, keys[first : first + group]):
                part = some[:, cut]
                scores = torch.baddbmm(part.new_empty(()), part, own_keys, beta=0, alpha=scale)
                found.append(fractions(scores, numerator, denominators))
            place, presence = (found[0] if len(found) == 1 else torch.cat(found, 1)).unbind(2)
            into[0] += place.sum(0)
            into[1] += torch.einsum("hnc,hc->nc", presence, presence.var(1, correction=0))


def add_output_fractions(
    into: Tensor, o_picture: Tensor, o_texts: Tensor, numerator: Tensor, denominators: Sequence[Tensor]
) -> None:
    """One layer's share in a concept's map and presence in a joint model, in place: as `add_fractions`, of the products
    `<O[i], O_t>` of the attention's outputs, all heads side by side. `into[0] += P` by the first denominator, which is
    `output_fractions` where all concepts are in it; `into[1] += var(P) P` by the second.

    Args:
        into: `[2, n, concepts]` float32 running sums of one picture.
        o_picture: `[heads, n, d]` outputs at the picture's places.
        o_texts: float32 `[texts, heads * d]`, the mean output of each text's tokens.
        numerator, denominators: `[texts, concepts]`, see `fractions`; two denominators.
    """
    rows, found = max(1, _TEMPORARY // (4 * o_texts.shape[1])), []
    with full_precision(o_picture.device):
        for part in o_picture.split(rows, 1):
            own = part.transpose(0, 1).flatten(1).float()
            found.append(fractions(own @ o_texts.T, numerator, denominators))
        place, presence = (found[0] if len(found) == 1 else torch.cat(found)).unbind(1)
        into[0] += place
        into[1] += presence * presence.var(0, correction=0)


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
