"""Proof that a call of the model is about the picture that is sampled, and not about another one of the same size."""

from __future__ import annotations

import torch
from torch import Tensor

OTHER_PICTURE = (
    "Another extension gave the model another picture than the one that is sampled in every call of a step, so nobody can say "
    "what the words did in this one. Switch it off to get heat maps."
)
_UNLIKE = 1e-4
"""How far the squared cosine of two latents may be from 1: a cast to bfloat16 takes it to 1e-6, a picture of its own (a
reference, a blurred copy) further than this as long as there is noise in it."""


def shows_sampled(latent: Tensor, sampled: Tensor) -> bool:
    """Whether every row of a model's input is one of the sampler's latents, scaled as the host scales them.

    ControlNet's *reference_only* shows the model another picture with noise of the same level, before the sampler's own call:
    size, text and rows are alike, and only the latent tells them apart.

    Args:
        latent: what the model is given, `[rows, c, …, h, w]`; channels behind the sampler's own (inpainting) do not count.
        sampled: what the sampler has, `[n, c', …, h, w]` with c' <= c.

    Returns:
        True also where the shapes say nothing: other sizes are told by whoever compares them.
    """
    if latent.dim() < 2 or sampled.dim() < 2:
        return True
    given = latent.detach()[:, : sampled.shape[1]].flatten(1)
    own = sampled.detach().to(given.device).flatten(1)
    if given.shape[1] != own.shape[1] or not len(own):
        return True
    given, own = given.float(), own.float()
    lengths = own.square().sum(1)
    # Row by row and without a matrix product, which a host may have set to few digits.
    others = [_unlike((row * own).sum(1), row.square().sum() * lengths) for row in given]
    return not bool(torch.stack(others).any())


def _unlike(products: Tensor, lengths: Tensor) -> Tensor:
    """Whether a row is none of the latents; a row that is not a number is a broken model's own."""
    return ((products < 0) | (products.square() < (1 - _UNLIKE) * lengths)).all()
