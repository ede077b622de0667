"""The default mask's last cut: what it may take away from a mask, and what it may not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from daam_core.masks.grabcut import certain, grabcut_around, painted_over

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SKY, RED, BLUE = (190, 228, 250), (214, 40, 40), (40, 80, 214)


def scene() -> tuple[Picture, Mask, NDArray[np.float32]]:
    """A block, its left part red, its right part of the sky's own colour, and heat over both: `[48, 64]`."""
    picture = np.full((48, 64, 3), SKY, np.uint8)
    picture[16:32, 16:32] = RED
    mask = np.zeros((48, 64), bool)
    mask[16:32, 16:44] = True
    return picture, mask, mask.astype(np.float32)


def outside(*objects: Mask) -> Mask:
    """What is outside all objects and not next to one."""
    grown = [cv2.dilate(one.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for one in objects]
    return ~np.logical_or.reduce(grown)


def test_warm_pixels_of_a_colour_that_the_ground_does_not_have_are_certain_but_for_their_rim() -> None:
    picture, mask, heat = scene()
    expected = np.zeros_like(mask)
    expected[17:31, 17:31] = True
    assert np.array_equal(certain(mask, outside(mask), heat, picture), expected)


def test_at_the_pictures_border_there_is_no_rim() -> None:
    picture = np.full((48, 64, 3), SKY, np.uint8)
    picture[16:, :20] = RED
    mask = np.zeros((48, 64), bool)
    mask[16:, :20] = True
    expected = np.zeros_like(mask)
    expected[17:, :19] = True
    assert np.array_equal(certain(mask, outside(mask), mask.astype(np.float32), picture), expected)


def test_what_is_cold_is_not_certain() -> None:
    picture, mask, heat = scene()
    heat[:, :24] *= 0.2
    expected = np.zeros_like(mask)
    expected[17:31, 25:31] = True
    assert np.array_equal(certain(mask, outside(mask), heat, picture), expected)


def test_the_shadow_on_the_ground_is_not_certain() -> None:
    """Ground in three quarters of its light, beside the object and as warm."""
    picture, mask, heat = scene()
    picture[16:32, 32:44] = [int(0.75 * value) for value in SKY]
    expected = np.zeros_like(mask)
    expected[17:31, 17:31] = True
    assert np.array_equal(certain(mask, outside(mask), heat, picture), expected)


def test_another_object_of_the_same_colour_does_not_make_it_the_grounds() -> None:
    picture, mask, heat = scene()
    alone = certain(mask, outside(mask), heat, picture)
    picture[4:12, 4:60] = RED
    other = np.zeros_like(mask)
    other[4:12, 4:60] = True
    assert np.array_equal(certain(mask, outside(mask, other), heat, picture), alone)
    assert not certain(mask, outside(mask), heat, picture).any()


def test_without_any_ground_nothing_is_certain() -> None:
    picture, mask, heat = scene()
    assert not certain(mask, np.zeros_like(mask), np.ones_like(heat), picture).any()


def test_what_is_hidden_gets_the_colour_of_the_nearest_ground() -> None:
    picture = np.random.default_rng(4).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    hidden, ground = np.zeros((9, 12), bool), np.ones((9, 12), bool)
    hidden[2:7, 3:8] = True
    ground[1:8, 2:9] = False
    shown = painted_over(picture, hidden, ground)
    assert np.array_equal(shown[~hidden], picture[~hidden])
    places = np.argwhere(ground)
    for y, x in np.argwhere(hidden):
        far = np.hypot(*(places - (y, x)).T)
        near = far <= 1.1 * far.min()  # the distance is taken on a grid of 3 x 3 steps, true to a tenth
        assert any(np.array_equal(shown[y, x], picture[py, px]) for py, px in places[near])
    assert np.array_equal(painted_over(picture, hidden, np.zeros_like(ground)), picture)


def test_of_two_touching_objects_of_one_colour_each_keeps_its_own() -> None:
    picture = np.full((64, 96, 3), SKY, np.uint8)
    picture[16:48, 16:80] = RED
    mask, other = np.zeros((64, 96), bool), np.zeros((64, 96), bool)
    mask[16:48, 16:48] = True
    other[16:48, 48:80] = True
    assert np.array_equal(grabcut_around(mask, other, mask.astype(np.float32), picture), mask)


def painted(
    seed: int, ground: tuple[int, int, int], body: tuple[int, int, int], windows: tuple[int, int, int]
) -> tuple[Picture, Mask]:
    """A body with four windows on a ground of two tones, brushed: every colour has its lights and shades."""
    picture = np.full((96, 96, 3), ground, float)
    picture[72:] *= 0.6
    mask = np.zeros((96, 96), bool)
    mask[30:70, 24:72] = True
    picture[mask] = body
    for left in (28, 40, 52, 62):
        picture[36:54, left : left + 7] = windows
    tones = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (96, 96)), (0, 0), 3)
    picture += 14 * (tones / tones.std())[..., None]
    return cv2.GaussianBlur(picture.clip(0, 255), (0, 0), 0.8).clip(0, 255).astype(np.uint8), mask


def test_the_cut_does_not_keep_one_colour_of_an_object_and_give_the_other_to_the_ground() -> None:
    """A body of a colour that resembles the ground more than its own windows do."""
    picture, mask = painted(15, (177, 138, 28), (181, 166, 0), (21, 11, 254))
    heat = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)
    cut = grabcut_around(mask, np.zeros_like(mask), heat, picture)
    assert (cut & mask).sum() / (cut | mask).sum() > 0.9
    cold = grabcut_around(mask, np.zeros_like(mask), 0.2 * heat, picture)  # nothing is certain: plain GrabCut
    assert (cold & mask).sum() / (cold | mask).sum() < 0.6


def test_the_cut_takes_ground_that_came_along_with_the_object() -> None:
    picture, mask, _ = scene()
    heat = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)
    expected = np.zeros_like(mask)
    expected[16:32, 16:32] = True
    assert np.array_equal(grabcut_around(mask, np.zeros_like(mask), heat, picture), expected)


def test_an_empty_mask_stays_empty() -> None:
    picture, mask, heat = scene()
    assert not grabcut_around(np.zeros_like(mask), np.zeros_like(mask), heat, picture).any()
