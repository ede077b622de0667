"""How much two masks overlap: IoU, Dice, pixel accuracy, and the paper's IoD and IoH.

Both arguments are `[..., h, w]`, bool or float 0..1, and broadcast over the leading dimensions; the result is float32
of the leading dimensions. For soft masks the intersection is the sum of the pixelwise minimum and the union that of the
maximum; on bool masks that is the usual count.

    >>> import torch
    >>> from daam_core.masks import dice, iod, ioh, iou, pixel_accuracy
    >>> house = torch.tensor([[True, True, False, False]])
    >>> tree = torch.tensor([[False, True, True, True]])
    >>> [round(float(measure(house, tree)), 3) for measure in (iou, dice, iod, ioh, pixel_accuracy)]
    [0.25, 0.4, 0.5, 0.333, 0.25]
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BadArgument


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union, 0..1; NaN where both are empty (there is nothing to agree on)."""
    a, b = _pair(first, second)
    return _ratio(_total(torch.minimum(a, b)), _total(torch.maximum(a, b)))


def dice(first: Tensor, second: Tensor) -> Tensor:
    """Twice the intersection over the sum of both, 0..1; NaN where both are empty."""
    a, b = _pair(first, second)
    return _ratio(2 * _total(torch.minimum(a, b)), _total(a) + _total(b))


def iod(dependent: Tensor, head: Tensor) -> Tensor:
    """Intersection over the dependent's area (paper, section 5.1): how much of it lies in the head; NaN if empty."""
    a, b = _pair(dependent, head)
    return _ratio(_total(torch.minimum(a, b)), _total(a))


def ioh(dependent: Tensor, head: Tensor) -> Tensor:
    """Intersection over the head's area (paper, section 5.1): how much of the head is covered; NaN if it is empty."""
    a, b = _pair(dependent, head)
    return _ratio(_total(torch.minimum(a, b)), _total(b))


def pixel_accuracy(first: Tensor, second: Tensor) -> Tensor:
    """Share of the pixels on which both agree, 0..1; for soft masks one minus the mean difference."""
    a, b = _pair(first, second)
    return 1.0 - (a - b).abs().mean((-1, -2))


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if not all(isinstance(mask, Tensor) and not mask.is_complex() for mask in (first, second)):
        raise BadArgument("Masks must be torch tensors, bool or real numbers of 0..1.")
    if first.ndim < 2 or second.ndim < 2 or first.shape[-2:] != second.shape[-2:] or 0 in first.shape[-2:]:
        raise BadArgument(
            f"Masks must be [..., height, width] of the same size, got {list(first.shape)} and {list(second.shape)}."
        )
    try:
        shape = torch.broadcast_shapes(first.shape, second.shape)
    except RuntimeError as error:
        raise BadArgument(f"Batches of {list(first.shape)} and {list(second.shape)} do not fit together.") from error
    a, b = first.float().expand(shape), second.float().expand(shape)
    for one in (a, b):
        if not bool(((one >= 0) & (one <= 1)).all()):  # also false for NaN
            raise BadArgument("Masks must be bool or lie in 0..1 (no NaN): threshold or stretch the map first.")
    return a, b


def _total(mask: Tensor) -> Tensor:
    return mask.sum((-1, -2))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(torch.float32).tiny), torch.nan)
