"""Whether latents are others in another scale: the same picture, as a scheduler or a host scales it for its model."""

from __future__ import annotations

import torch
from torch import Tensor

_UNLIKE = 1e-4
"""How far the squared cosine of two latents may be from 1: a cast to bfloat16 takes it to 3e-6, a picture of its own (a
reference, a blurred copy) further than this as long as there is noise in it."""


def are_scaled(shown: Tensor, painted: Tensor) -> bool:
    """Whether every row of `shown` `[rows, …]` is a row of `painted` `[n, …]` times a number above 0, but for a cast.

    Rows of no numbers (NaN) are any other's: a model that broke has not been shown another picture. Waits for the device.

    Example:
        >>> a = torch.tensor([[1.0, 2.0]])
        >>> are_scaled(3 * a, a), are_scaled(-a, a), are_scaled(a.flip(1), a)
        (True, False, False)
    """
    own = painted.detach().to(shown.device).float().flatten(1)
    lengths = own.square().sum(1)
    # Row by row and without a matrix product, which a host may have set to few digits.
    rows = shown.detach().float().flatten(1)
    return not bool(torch.stack([_unlike((row * own).sum(1), row.square().sum(), lengths) for row in rows]).any())


def _unlike(products: Tensor, length: Tensor, lengths: Tensor) -> Tensor:
    """Whether a row is none of the latents."""
    other = (products < 0) | (products.square() < (1 - _UNLIKE) * length * lengths)
    return (other | ((length == 0) & (lengths > 0)) | ((length > 0) & (lengths == 0))).all()
