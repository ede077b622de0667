"""One predicted mask against the true one, as columns of a row."""

from __future__ import annotations

import math

from torch import Tensor

from .. import overlap
from .study import Row


def scores(mask: Tensor, truth: Tensor) -> Row:
    """IoU, Dice, pixel accuracy, and the areas of both as shares of the picture.

    Both are bool `[H, W]`. IoU and Dice are None where both masks are empty: there is nothing to agree on. An empty mask
    of an object that is there scores 0, and so does any mask of an object that is not.
    """
    return {
        "iou": _number(overlap.iou(mask, truth)),
        "dice": _number(overlap.dice(mask, truth)),
        "pixel_accuracy": _number(overlap.pixel_accuracy(mask, truth)),
        "area": _number(mask.float().mean()),
        "truth_area": _number(truth.float().mean()),
    }


def no_scores() -> Row:
    """The same columns where nothing could be compared."""
    return dict.fromkeys(("iou", "dice", "pixel_accuracy", "area", "truth_area"))


def _number(value: Tensor) -> float | None:
    # Six digits: what a mask can tell, and the same text whichever way a sum was rounded.
    return None if math.isnan(float(value)) else round(float(value), 6)
