"""The judge of silhouettes on pictures whose faults were painted into them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from daam_core.errors import BadArgument
from daam_core.tiny.scenes import COLOURS, draw
from daam_core.tiny.shapes import NOUNS
from daam_core.tiny.silhouettes import judge_silhouette


@pytest.mark.parametrize("noun", NOUNS)
def test_what_the_world_draws_passes(noun: str) -> None:
    number = NOUNS.index(noun)
    colour, ground = (("red", "plain"), ("blue", "night"), ("yellow", "sea"))[number % 3]
    scene = draw(np.random.default_rng(number), [(colour, noun)], ground)  # type: ignore[arg-type]
    found = judge_silhouette(scene.image, noun, colour)
    assert not found.fails, (colour, ground, found)
    ys, xs = np.nonzero(scene.objects[0].mask)
    assert abs(found.centre[0] - xs.mean()) < 16 and abs(found.centre[1] - ys.mean()) < 16


def test_another_noun_or_colour_fails() -> None:
    scene = draw(np.random.default_rng(1), [("red", "car")])
    assert judge_silhouette(scene.image, "fish", "red").fails
    assert judge_silhouette(scene.image, "car", "blue").fails


def test_a_second_tail_and_a_lost_eye_are_errors() -> None:
    scene = draw(np.random.default_rng(2), [("orange", "fish")])
    (one,) = scene.objects
    x, y = (round(v) for v in one.centre)
    tail = scene.image.copy()
    shade = tuple(int(0.64 * v) for v in COLOURS["orange"])
    points = np.array([[x, y - round(one.size * 0.25)], [x - 9, y - round(one.size * 0.5)], [x + 9, y - round(one.size * 0.5)]])
    cv2.fillPoly(tail, [points], shade)
    drawn = judge_silhouette(scene.image, "fish", "orange").error
    assert judge_silhouette(tail, "fish", "orange").error > drawn + 0.01
    blind = scene.image.copy()
    eye = (round(one.centre[0] - 0.3 * one.size), round(one.centre[1] - 0.06 * one.size))
    cv2.circle(blind, eye, round(0.12 * one.size), COLOURS["orange"], -1)
    assert judge_silhouette(blind, "fish", "orange").error > drawn + 0.01


def test_two_of_a_kind_fail() -> None:
    first = draw(np.random.default_rng(3), [("red", "heart"), ("red", "star")], relation="next to")
    assert judge_silhouette(first.image, "heart", "red").fails


@pytest.mark.parametrize(
    ("picture", "noun", "sentence"),
    [
        (np.zeros((64, 64, 3), np.uint8), "car", "uint8 pictures"),
        (np.zeros((128, 128, 3), np.float32), "car", "float32"),
        (np.zeros((128, 128, 3), np.uint8), "cat", "no 'red' 'cat'"),
    ],
)
def test_what_cannot_be_judged(picture: np.ndarray, noun: str, sentence: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadArgument, match=sentence):
        judge_silhouette(picture, noun, "red")
