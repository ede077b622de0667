"""Whether numbers that were made once more are those of before, but for rounding: the proof that text is read rightly."""

from __future__ import annotations

from torch import Tensor

_TOLERANCE = 0.02
"""How far they may be apart, as a share of the largest: half precision rounds otherwise in a batch of another size."""


def alike(found: Tensor, wanted: Tensor) -> bool:
    """`max |found - wanted| <= 0.02 max |wanted|`, of tensors of one shape; no other shape is, nor what is no number.

    Waits for the device.

    Example:
        >>> import torch
        >>> alike(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.01])), alike(torch.ones(2), torch.ones(3))
        (True, False)
    """
    if found.shape != wanted.shape:
        return False
    found, wanted = found.float(), wanted.float()
    return bool((found - wanted).abs().amax() <= _TOLERANCE * wanted.abs().amax() + 1e-6)
