"""Lets the UNet's coarse cross-attention rest on the start token, as that of Stable Diffusion does.

The seven layers at 8 x 8 and 4 x 4 have 28 of the 34 heads. Left to training they attend to all 77 tokens evenly, or to a
colour's word from everywhere: either way a constant in every word's map, in which the places that the 16 x 16 layers find
are lost. Here their queries get a constant part, solved for, that the start token's key answers to, padding a little and
words hardly. What they read is then the same everywhere: the whole scene, from the padding's states. Queries and keys of
these layers stay as they are from then on; nothing in the loss looks at a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

FINE = ("down_blocks.0.", "up_blocks.2.")  # what attends at the latents' own size
START, PADDING, WORD = 5.0, 0.9, 0.0  # scores that are asked for
_SHARES = 1.0, 0.2, 3.0  # how much these count for in the fit
_ROUNDS = 12
_TINY = 1e-5  # keeps the fit solvable where keys lie in fewer dimensions than they have


def coarse_blocks(unet: nn.Module) -> Iterator[Any]:
    """The transformer blocks below the latents' own size."""
    for name, block in unet.named_modules():
        if name.endswith("transformer_blocks.0") and not name.startswith(FINE):
            yield block


def freeze_coarse_attention(unet: nn.Module) -> None:
    """Leave queries and keys of the coarse cross-attention out of training."""
    for block in coarse_blocks(unet):
        for part in (block.norm2, block.attn2.to_q, block.attn2.to_k):
            part.requires_grad_(False)


@torch.no_grad()
def rest_on_start(unet: UNet2DConditionModel, ids: Tensor, end: int, states: Sequence[Tensor]) -> None:
    """Give the queries of every coarse cross-attention layer their constant part, in place.

    The layer norm ahead of the queries gives out numbers of zero mean. A constant bias behind its scale reaches the queries
    along one direction that no picture uses; there the projection is set to the vector that was solved for.

    Args:
        unet: as `make_unet` makes it.
        ids: token ids `[captions, 77]`.
        end: the id of the end token.
        states: what one or several text encoders make of them, each `[captions, 77, 128]`.
    """
    at = torch.arange(ids.shape[1])
    ends = (ids == end).int().argmax(1)[:, None]
    is_word, is_padding = (at > 0) & (at < ends), at >= ends
    text = [s.double() for s in states]
    words = torch.cat([s[is_word] for s in text])
    padding = torch.cat([s[is_padding][::23] for s in text])  # neighbours are nearly alike
    start = text[0][:, 0].mean(0, keepdim=True)
    for block in coarse_blocks(unet):
        attn = block.attn2
        keys = [attn.to_k.weight.double() @ part.T for part in (start, padding, words)]
        heads = zip(*(part.unflatten(0, (attn.heads, -1)).transpose(1, 2) for part in keys), strict=True)
        wanted = torch.cat([_direction(*of_head) for of_head in heads]) / attn.scale
        query = attn.to_q.weight.double()
        unused = 1.0 / block.norm2.weight.double()
        query += torch.outer(wanted - query.sum(1), unused) / unused.sum()
        attn.to_q.weight.copy_(query)
        block.norm2.bias.fill_(1.0)


def _direction(start: Tensor, padding: Tensor, words: Tensor) -> Tensor:
    """The vector `[d]` float64 whose products with keys `[n, d]` are nearest to the scores that are asked for, up to a constant
    that a softmax does not see. Words may score less, so from round to round those above count for more."""
    centre = words.mean(0)
    keys = torch.cat([start, padding, words]) - centre
    keys = torch.cat([keys, torch.ones(len(keys), 1, dtype=keys.dtype)], 1)
    sizes = [len(start), len(padding), len(words)]
    asked = _each((START, PADDING, WORD), sizes)
    even = _each([share / size for share, size in zip(_SHARES, sizes, strict=True)], sizes)
    found, weights = torch.zeros(keys.shape[1], dtype=keys.dtype), even
    for _ in range(_ROUNDS):
        weighted = keys * weights[:, None]
        found = torch.linalg.solve(keys.T @ weighted + _TINY * torch.eye(keys.shape[1]).double(), weighted.T @ asked)
        over = keys @ found - asked
        of_word = torch.where(over > 0, 1 + 4 * over.square(), 0.15)
        weights = torch.cat([even[: -len(words)], (even * of_word)[-len(words) :]])
    return found[:-1]


def _each(values: Sequence[float], sizes: Sequence[int]) -> Tensor:
    return torch.cat([torch.full((size,), value, dtype=torch.float64) for value, size in zip(values, sizes, strict=True)])
