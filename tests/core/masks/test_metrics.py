"""Overlap of masks, counted by hand."""

from __future__ import annotations

import pytest
import torch

from daam_core.errors import BadArgument
from daam_core.masks.metrics import dice, iod, ioh, iou, pixel_accuracy

A = torch.tensor([[1, 1, 1], [0, 0, 0]], dtype=torch.bool)  # 3 pixels
B = torch.tensor([[0, 1, 1], [0, 1, 1]], dtype=torch.bool)  # 4 pixels, 2 in common, 5 together
NONE = torch.zeros(2, 3, dtype=torch.bool)


def test_counts_by_hand() -> None:
    assert iou(A, B).item() == pytest.approx(2 / 5)
    assert dice(A, B).item() == pytest.approx(4 / 7)
    assert iod(A, B).item() == pytest.approx(2 / 3)
    assert ioh(A, B).item() == pytest.approx(2 / 4)
    assert pixel_accuracy(A, B).item() == pytest.approx(3 / 6)


def test_equal_and_disjoint_masks() -> None:
    for measure in (iou, dice, iod, ioh):
        assert measure(A, A).item() == 1
        assert measure(A, ~A).item() == 0
    assert pixel_accuracy(A, ~A).item() == 0


def test_nothing_to_agree_on_is_nan_and_not_a_score() -> None:
    assert iou(NONE, NONE).isnan()
    assert dice(NONE, NONE).isnan()
    assert iod(NONE, A).isnan()
    assert ioh(A, NONE).isnan()
    assert iou(NONE, A).item() == 0
    assert pixel_accuracy(NONE, NONE).item() == 1


def test_soft_masks_use_minimum_and_maximum() -> None:
    soft = torch.tensor([[0.5, 1.0, 0.25], [0.0, 0.0, 0.5]])
    assert iou(soft, B).item() == pytest.approx((1 + 0.25 + 0.5) / (0.5 + 1 + 1 + 1 + 1))
    assert pixel_accuracy(soft, B).item() == pytest.approx(1 - (0.5 + 0 + 0.75 + 0 + 1 + 0.5) / 6)


def test_batches_broadcast_and_keep_their_order() -> None:
    many = torch.stack([A, B, NONE])
    assert torch.allclose(iou(many, A), torch.tensor([1.0, 0.4, 0.0]))
    table = iou(many[:, None], many[None])
    assert table.shape == (3, 3)
    assert table[0, 1] == table[1, 0] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (A, B.T),
        (A, A[0]),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (torch.stack([A, B]), torch.stack([A, B, A])),
        (A, torch.full((2, 3), float("nan"))),
        (A.float() * 2, A),
    ],
)
def test_what_cannot_be_compared_is_refused(first: torch.Tensor, second: torch.Tensor) -> None:
    with pytest.raises(BadArgument):
        iou(first, second)
