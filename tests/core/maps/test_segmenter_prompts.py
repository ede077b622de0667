"""Words to a segmenter and back: points in pixels of the picture, masks ranked by the heat they hold."""

from __future__ import annotations

import pytest
import torch

from daam_core.errors import BadArgument, WordNotFound
from daam_core.maps.segmenter_prompts import score_masks, segmenter_prompts

from ...web.samples import heat_maps

MAPS = heat_maps(["house", "and", "tree"], (96, 128), [(12, 16)])


def test_points_and_boxes_of_a_word() -> None:
    mask = MAPS.mask("house", "threshold")
    asked = segmenter_prompts(MAPS, "house", mask, positive=2, negative=2, smallest=0)
    assert asked.positive and all(bool(mask[y, x]) for x, y in asked.positive)
    tree, house = MAPS.heat_map("tree", size=MAPS.size), MAPS.heat_map("house", size=MAPS.size)
    assert all(tree[y, x] / tree.max() > house[y, x] / house.max() and not mask[y, x] for x, y in asked.negative)
    inside = torch.zeros_like(mask)
    for box in asked.boxes:
        inside[box.y : box.y + box.height, box.x : box.x + box.width] = True
    assert not bool((mask & ~inside).any())
    assert segmenter_prompts(MAPS, "house", mask, positive=0, negative=0).positive == []


def test_scores_are_the_plain_sums() -> None:
    own = MAPS.mask("house", "threshold")
    left, everything, nothing = torch.zeros(96, 128), torch.ones(96, 128), torch.zeros(96, 128)
    left[:, :32] = 1
    scores = score_masks(MAPS, "house", [own.float(), left, everything, nothing], own)
    heat = MAPS.heat_map("house", size=MAPS.size).double().clamp(min=0)
    assert scores[0].iou == 1 and scores[0].lift > 1
    assert scores[1].share == pytest.approx(float(heat[:, :32].sum() / heat.sum()), abs=1e-9)
    assert scores[1].lift == pytest.approx(4 * scores[1].share, abs=1e-9)
    assert scores[2].share == pytest.approx(1) and scores[2].lift == pytest.approx(1)
    assert (scores[3].share, scores[3].lift, scores[3].iou) == (0, 0, 0)


def test_what_is_wrong_is_told() -> None:
    mask = MAPS.mask("house", "threshold")
    with pytest.raises(BadArgument, match="0 to 32"):
        segmenter_prompts(MAPS, "house", mask, positive=33)
    with pytest.raises(BadArgument, match="The mask is"):
        segmenter_prompts(MAPS, "house", mask[1:])
    with pytest.raises(BadArgument, match="A mask is"):
        score_masks(MAPS, "house", [mask[1:]], mask)
    with pytest.raises(WordNotFound):
        segmenter_prompts(MAPS, "dragon", mask)
