"""Whose a part of the figure is: touching objects of one colour are told apart where the figure is narrow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from daam_core.masks.ownership import owners

Values = NDArray[np.float32]


def discs(*places: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Discs of radius 15 in a picture of 60 x 100: bool."""
    y, x = np.mgrid[:60, :100]
    return [(y - cy) ** 2 + (x - cx) ** 2 <= 15**2 for cy, cx in places]


def blurred(share: Values | NDArray[np.bool_]) -> Values:
    return cv2.GaussianBlur(share.astype(np.float32), (0, 0), 5).astype(np.float32)


def whose(figure: NDArray[np.bool_], heat: Values, own: Values) -> NDArray[np.int64]:
    lab = np.where(figure[..., None], 90.0, 20.0).astype(np.float32).repeat(3, -1)
    return owners(figure, heat, own, lab, 0.9, 0.5)


def test_two_touching_discs_of_one_colour_part_at_their_neck() -> None:
    """Propagated heat is as high for both words on both discs; before, it differs by a fifth, and its noise is as large."""
    left, right = discs((30, 35), (30, 64))
    noise = np.random.default_rng(2).normal(0, 0.2, (2, 60, 100)).astype(np.float32)
    own = np.stack([blurred(0.9 * left + 0.7 * right), blurred(0.7 * left + 0.9 * right)]) + noise
    found = whose(left | right, np.ones((2, 60, 100), np.float32), own.clip(0, 1))
    assert ((found == 0) & left).sum() / ((found == 0) | left).sum() > 0.95
    assert ((found == 1) & right).sum() / ((found == 1) | right).sum() > 0.95
    assert (found[~(left | right)] == -1).all()


def test_a_disc_is_whole_though_another_word_is_hotter_on_half_of_it() -> None:
    left, right = discs((30, 20), (30, 75))
    own = np.stack([blurred(left), blurred(right)])
    heat = own.copy()
    own[1, :30, :40] = own[0, :30, :40] + 0.2  # leaked: the second word is nowhere near its maximum there
    heat[1, :30, :40] = 0.6
    heat /= heat.max((1, 2), keepdims=True)
    found = whose(left | right, heat, own)
    assert (found[left] == 0).all() and (found[right] == 1).all()


def test_a_part_where_no_word_is_strong_is_nobodys() -> None:
    left, right = discs((30, 20), (30, 75))
    heat = np.stack([blurred(left), 0.4 * blurred(left)])
    found = whose(left | right, heat, heat)
    assert (found[left] == 0).all() and (found[right] == -1).all()
