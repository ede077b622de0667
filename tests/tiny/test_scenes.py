"""The world is the ground truth of everything else: same numbers, same scene; masks that are exactly the drawing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from daam_core.errors import DaamLensError
from daam_core.tiny.captions import HELD_OUT
from daam_core.tiny.scenes import COLOURS, Scene, draw, mask_picture, scene_at
from daam_core.tiny.shapes import NOUNS
from daam_core.tiny.text_encoder import random_fact

SKY = (245, 240, 225)


def plain(noun: str, colour: str, seed: int = 0) -> Scene:
    return draw(np.random.default_rng([seed, NOUNS.index(noun)]), [(colour, noun)], "plain")


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    first, again, other = scene_at(3, 5), scene_at(3, 5), scene_at(3, 6)
    assert np.array_equal(first.image, again.image)
    assert first.caption == again.caption
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.objects, again.objects, strict=True))
    assert not np.array_equal(first.image, other.image)


def test_a_picture_is_what_the_documentation_says() -> None:
    scene = scene_at(0, 0)
    assert scene.image.shape == (128, 128, 3)
    assert scene.image.dtype == np.uint8
    assert all(one.mask.shape == (128, 128) and one.mask.dtype == np.bool_ for one in scene.objects)


@pytest.mark.parametrize("noun", NOUNS)
def test_a_mask_is_exactly_where_the_paper_is_painted_over(noun: str) -> None:
    scene = plain(noun, "purple")
    mask = scene.objects[0].mask.astype(np.uint8)
    distance = np.abs(scene.image.astype(int) - SKY).max(axis=2)
    surely_inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    surely_outside = cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 0
    assert distance[surely_outside].max() == 0
    assert distance[surely_inside].min() > 4  # white details are close to paper, but not paper
    # Pixels on the edge are mixtures; counted by halves they must give the same area.
    painted = int((distance > 0).sum())
    assert surely_inside.sum() < mask.sum() < painted
    assert mask.sum() == pytest.approx((surely_inside.sum() + painted) / 2, rel=0.2)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_shows_its_colour(noun: str) -> None:
    scene = plain(noun, "blue")
    near = np.abs(scene.image.astype(int) - COLOURS["blue"]).max(axis=2) < 24
    assert (near & scene.objects[0].mask).sum() > 0.1 * scene.objects[0].mask.sum()


def test_silhouettes_are_distinct() -> None:
    rows = []
    for noun in NOUNS:
        ys, xs = np.nonzero(plain(noun, "red").objects[0].mask)
        box = plain(noun, "red").objects[0].mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        rows.append(cv2.resize(box.astype(np.uint8), (32, 32), interpolation=cv2.INTER_NEAREST) > 0)
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            assert (a & b).sum() / (a | b).sum() < 0.9


def test_objects_never_share_a_pixel() -> None:
    for k in range(30):
        scene = scene_at(8, k, two=1.0)
        assert not (scene.objects[0].mask & scene.objects[1].mask).any()


@pytest.mark.parametrize("k", range(12))
def test_relations_are_drawn_as_said(k: int) -> None:
    rng = np.random.default_rng(k)
    above = draw(rng, [("red", "car"), ("blue", "fish")], relation="above").objects
    below = draw(rng, [("red", "car"), ("blue", "fish")], relation="below").objects
    beside = draw(rng, [("red", "car"), ("blue", "fish")], relation="next to").objects
    assert above[0].centre[1] < above[1].centre[1]
    assert below[0].centre[1] > below[1].centre[1]
    assert abs(beside[0].centre[0] - beside[1].centre[0]) > abs(beside[0].centre[1] - beside[1].centre[1])


@pytest.mark.parametrize("k", range(6))
def test_shading_changes_the_picture_and_nothing_else(k: int) -> None:
    flat, shaded = scene_at(4, k), scene_at(4, k, style="shaded")
    assert flat.caption == shaded.caption
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(flat.objects, shaded.objects, strict=True))
    mask = flat.objects[0].mask
    assert len(np.unique(shaded.image[mask], axis=0)) > 4 * len(np.unique(flat.image[mask], axis=0))


def test_unreal_pairs_are_never_drawn_or_said_in_training() -> None:
    drawn = {(one.colour, one.noun) for k in range(500) for one in scene_at(1, k).objects}
    rng = np.random.default_rng(0)
    said = {pair for _ in range(3000) for pair in random_fact(rng).pairs}
    assert not drawn & HELD_OUT
    assert not said & HELD_OUT
    assert len(said) == 84 - len(HELD_OUT)


def test_unreal_scenes_show_one_unreal_pair_first() -> None:
    for k in range(20):
        scene = scene_at(1, k, held_out=True)
        pairs = [(one.colour, one.noun) in HELD_OUT for one in scene.objects]
        assert pairs == [True, *[False] * (len(pairs) - 1)]


def test_mask_picture_paints_each_mask() -> None:
    scene = scene_at(2, 1)
    picture = mask_picture(scene)
    for one in scene.objects:
        assert (picture[one.mask] == COLOURS[one.colour]).all()


def test_unknown_words_are_refused_with_the_list() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DaamLensError, match=r"no 'dog'.*house, tree"):
        draw(rng, [("red", "dog")])
    with pytest.raises(DaamLensError, match=r"no colour 'beige'.*red, orange"):
        draw(rng, [("beige", "car")])
    with pytest.raises(DaamLensError, match="one or two"):
        draw(rng, [])


@pytest.mark.parametrize("side", [64, 256, 512])
def test_a_scene_in_another_size_is_the_same_scene(side: int) -> None:
    usual, other = scene_at(5, 3, two=1.0), scene_at(5, 3, two=1.0, side=side)
    assert other.image.shape == (side, side, 3) and other.caption == usual.caption
    small = cv2.resize(other.image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - cv2.resize(usual.image, (64, 64), interpolation=cv2.INTER_AREA)).max() <= 3
    for one, same in zip(other.objects, usual.objects, strict=True):
        assert one.size * 128 / side == pytest.approx(same.size)
        assert one.centre[0] * 128 / side == pytest.approx(same.centre[0])
        assert one.mask.shape == (side, side)
        assert one.mask.mean() == pytest.approx(same.mask.mean(), abs=0.01)


def test_a_scene_of_no_such_size_is_refused() -> None:
    with pytest.raises(DaamLensError, match="64, 128, 256 or 512 pixels, not 100"):
        scene_at(5, 3, side=100)
