"""Whether what a model is shown first in a step is the picture that its pipeline paints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .scaled_latents import are_scaled


class ShownLatents:
    """What a model is shown in one step, where it is given the same texts more than once.

    Its first answer is the one that is read. Self-attention guidance looks once more at a blurred picture; a pipeline with a
    reference picture shows that first, and the maps would be the reference's.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._differ = self._untold = False

    def first(self, sample: Any) -> None:
        """A step begins with these latents, `[rows, c, …]` or a list of rows."""
        self._first, self._differ = _row(sample), False

    def again(self, sample: Any) -> None:
        """The model is given texts of this step once more."""
        row, first = _row(sample), self._first
        same = row is None or first is None or (row.shape == first.shape and torch.equal(row, first.to(row)))
        self._differ = self._differ or not same

    def at_another_time(self) -> None:
        """A step ends because the model is given its texts at another time, and no scheduler was told."""
        self._untold = True

    def require_painted(self, latents: Any) -> None:
        """The step ends: the scheduler is given `latents`, of which it makes the next.

        Raises:
            UnsupportedModel: the model was shown others first, or the same text at several times.
        """
        if self._untold:
            raise UnsupportedModel(
                "between two steps of the scheduler the model was shown pictures at several times with the same text "
                "(pipelines with a reference picture do, and so does an inversion), so nobody can tell whose attention is the "
                "picture's. Paint without the reference, and invert outside the trace"
            )
        first, self._first = self._first, None
        differ, self._differ = self._differ, False  # a scheduler may be called once more in a step, of sound say
        painted = _row(latents)
        if not differ or _alike(first, painted):
            return
        if (
            first is not None
            and painted is not None
            and first.dim() == painted.dim() == 3
            and first.shape[1:] != painted.shape[1:]
        ):
            (h, w), (height, width) = first.shape[1:], painted.shape[1:]
            raise UnsupportedModel(
                f"the picture is painted in several views: the model was shown {w} x {h} latents of {width} x {height}, and "
                "only one view is read. Paint a picture of that size"
            )
        raise UnsupportedModel(
            "in one step the model was shown several pictures with the same text, and the first is not the one that is painted "
            "(pipelines with a reference picture show that one first), so nobody can tell whose attention is the picture's. "
            "Paint without the reference"
        )


def _row(sample: Any) -> Tensor | None:
    """The first row."""
    if isinstance(sample, (list, tuple)):
        return sample[0] if sample and isinstance(sample[0], Tensor) else None
    return sample[0] if isinstance(sample, Tensor) and sample.dim() > 1 else None


def _alike(shown: Tensor | None, painted: Tensor | None) -> bool:
    """Whether latents `[c, …]` are, in their first channels, a multiple of others."""
    if shown is None or painted is None or shown.shape[1:] != painted.shape[1:] or len(shown) < len(painted):
        return False
    return are_scaled(shown[None, : len(painted)], painted[None])
