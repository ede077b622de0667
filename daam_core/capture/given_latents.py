"""Whether what a model is shown first in a step is the picture that its pipeline paints."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .scaled_latents import are_scaled


class GivenLatents:
    """What a model is shown in one step with each text of each picture, where it is given the same texts more than once.

    Its first answer is the one that is read. Self-attention guidance looks once more at a blurred picture; a pipeline with a
    reference picture shows that first, in a call of its own or ahead of the picture in the same batch, and the maps would be
    the reference's.
    """

    def __init__(self) -> None:
        self._first: dict[Hashable, tuple[int, Tensor]] = {}
        self._differ = self._untold = False

    def begin(self) -> None:
        """A step begins."""
        self._first, self._differ = {}, False

    def add(
        self, sample: Any, texts: Mapping[int, tuple[Hashable, int]], copies: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        """The model is called in this step.

        Args:
            sample: latents `[rows, c, …]`, or a list of rows.
            texts: for a row of the batch, which text of which picture it has.
            copies: for a row that has one of these texts once more, the rows that it may be a copy of.
        """
        once_more: list[list[tuple[Tensor, Tensor]]] = []
        for i, (text, image) in texts.items():
            row = _row(sample, i)
            if row is None:
                self._differ |= text in self._first
            elif text in self._first:
                once_more.append([(row, self._first[text][1])])
            else:
                self._first[text] = image, row
        for i, others in (copies or {}).items():
            row = _row(sample, i)
            once_more.append([(row, other) for j in others if (other := _row(sample, j)) is not None and row is not None])
        self._differ = not _any_equal(once_more) or self._differ

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
        first, self._first = self._first, {}
        differ, self._differ = self._differ, False  # a scheduler may be called once more in a step, of sound say
        pairs = [(shown, _row(latents, image)) for image, shown in first.values()]
        unlike = [pair for pair in pairs if not _alike(*pair)] if differ else []
        if not differ or (pairs and not unlike):
            return
        shown, painted = unlike[0] if unlike else (None, None)
        if (
            shown is not None
            and painted is not None
            and shown.dim() == painted.dim() == 3
            and shown.shape[1:] != painted.shape[1:]
        ):
            (h, w), (height, width) = shown.shape[1:], painted.shape[1:]
            raise UnsupportedModel(
                f"the picture is painted in several views: the model was shown {w} x {h} latents of {width} x {height}, and "
                "only one view is read. Paint a picture of that size"
            )
        raise UnsupportedModel(
            "in one step the model was shown several pictures with the same text, and the first is not the one that is painted "
            "(pipelines with a reference picture show that one first), so nobody can tell whose attention is the picture's. "
            "Paint without the reference"
        )


def _row(sample: Any, i: int) -> Tensor | None:
    """One row of latents; None where they have no such row."""
    if isinstance(sample, Tensor):
        return sample[i] if sample.dim() > 1 and i < len(sample) else None
    row = sample[i] if isinstance(sample, (list, tuple)) and i < len(sample) else None
    return row if isinstance(row, Tensor) else None


def _any_equal(groups: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> bool:
    """Whether in each group two are equal; all comparisons cost one wait for the device."""
    marks = [
        torch.stack([(a == b.to(a)).all() if a.shape == b.shape else a.new_zeros((), dtype=torch.bool) for a, b in group]).any()
        for group in groups
        if group
    ]
    return all(groups) and (not marks or bool(torch.stack(marks).all()))


def _alike(shown: Tensor | None, painted: Tensor | None) -> bool:
    """Whether latents `[c, …]` are, in their first channels, a multiple of others."""
    if shown is None or painted is None or shown.shape[1:] != painted.shape[1:] or len(shown) < len(painted):
        return False
    return are_scaled(shown[None, : len(painted)], painted[None])
