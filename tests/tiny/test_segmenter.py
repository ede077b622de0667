"""The judge is the truth of the map studies: it must agree with exact masks, and with colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core.errors import BadArgument
from daam_core.tiny import load_segmenter, load_tiny
from daam_core.tiny.scenes import draw, scene_at
from daam_core.tiny.segmenter import Segmenter, exact_overlap, overlap


@pytest.fixture(scope="module")
def judge() -> Segmenter:
    return load_segmenter()


def test_it_agrees_with_exact_masks_of_unseen_scenes(judge: Segmenter) -> None:
    assert exact_overlap(judge, None, seed=123_456, count=40) > 0.95


def test_it_agrees_on_pictures_of_the_autoencoder(judge: Segmenter) -> None:
    vae: Any = load_tiny().vae
    assert exact_overlap(judge, vae, seed=123_457, count=24) > 0.93


def test_it_names_noun_and_colour_also_of_unreal_pairs(judge: Segmenter) -> None:
    scenes = [scene_at(77_777, k, two=0.5, held_out=True) for k in range(24)]
    found = judge.find([Image.fromarray(s.image) for s in scenes])
    right = [
        {(f.colour, f.noun) for f in seen.values()} == {(o.colour, o.noun) for o in s.objects}
        for s, seen in zip(scenes, found, strict=True)
    ]
    assert np.mean(right) > 0.95


def test_it_sees_nothing_in_an_empty_picture(judge: Segmenter) -> None:
    paper = torch.tensor([245, 240, 225], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 128, 128)
    assert judge.find(paper) == [{}]


def test_masks_are_full_size_and_disjoint(judge: Segmenter) -> None:
    scene = draw(np.random.default_rng(1), [("red", "house"), ("green", "tree")])
    (found,) = judge.find([Image.fromarray(scene.image)])
    assert set(found) == {"house", "tree"}
    assert found["house"].mask.shape == (128, 128)
    assert not (found["house"].mask & found["tree"].mask).any()
    assert 0.01 < found["house"].share < 0.3


def test_pictures_of_another_size_are_refused(judge: Segmenter) -> None:
    with pytest.raises(BadArgument, match=r"\[1, 3, 64, 64\]"):
        judge.find(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_overlap() -> None:
    a, b = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    assert overlap(a, b) == 1.0
    a[:, :2], b[:, 1:3] = True, True
    assert overlap(a, b) == pytest.approx(1 / 3)
