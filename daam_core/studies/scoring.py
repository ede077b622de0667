"""One predicted mask against the true one, as columns of a row.

The measures are those of `overlap`; here they come from four counts of pixels, because a study scores hundreds of bool masks
a picture, and at 1024 px that is ten times quicker.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import BadArgument
from .study import Row


@dataclass(frozen=True)
class Counts:
    """Pixels of the mask, of the truth, of both at once, and of the picture."""

    mask: int
    truth: int
    both: int
    all: int

    @classmethod
    def of(cls, mask: Tensor, truth: Tensor) -> Counts:
        """Of two bool `[H, W]`. Raises BadArgument for other shapes or kinds."""
        if mask.shape != truth.shape or mask.ndim != 2 or str(mask.dtype) != "torch.bool" or mask.dtype != truth.dtype:
            raise BadArgument(
                f"Masks to score are bool [H, W] of one size, not {mask.dtype} {list(mask.shape)} and {truth.dtype} "
                f"{list(truth.shape)}."
            )
        return cls(int(mask.sum()), int(truth.sum()), int((mask & truth).sum()), mask.numel())

    @property
    def union(self) -> int:
        return self.mask + self.truth - self.both

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where both are empty."""
        return _ratio(self.both, self.union)

    @property
    def dice(self) -> float | None:
        """Twice the intersection over the sum of both; None where both are empty."""
        return _ratio(2 * self.both, self.mask + self.truth)

    @property
    def pixel_accuracy(self) -> float | None:
        """Part of the pixels on which both agree."""
        return _ratio(self.all - self.union + self.both, self.all)


def scores(mask: Tensor, truth: Tensor) -> Row:
    """IoU, Dice, pixel accuracy, and the areas of both as shares of the picture.

    Both are bool `[H, W]`. IoU and Dice are None where both masks are empty: there is nothing to agree on. An empty mask
    of an object that is there scores 0, and so does any mask of an object that is not.
    """
    seen = Counts.of(mask, truth)
    return {
        "iou": seen.iou,
        "dice": seen.dice,
        "pixel_accuracy": seen.pixel_accuracy,
        "area": _ratio(seen.mask, seen.all),
        "truth_area": _ratio(seen.truth, seen.all),
    }


def no_scores() -> Row:
    """The same columns where nothing could be compared."""
    return dict.fromkeys(("iou", "dice", "pixel_accuracy", "area", "truth_area"))


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
