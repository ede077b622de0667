"""Masks of a video: one decision for all frames, on maps whose right answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from daam_core import MASK_METHODS, HeatMaps
from daam_core.errors import BadArgument, DetailMissing
from daam_core.masks.video import without_lone_parts

from ..maps.test_heatmaps import made
from ..maps.videos import LEFTS, moving_house, random_video


def truth() -> torch.Tensor:
    mask = torch.zeros(4, 96, 128, dtype=torch.bool)
    for f, left in enumerate(LEFTS):
        mask[f, 32:64, 8 * left : 8 * left + 32] = True
    return mask


def overlap(mask: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((mask & wanted).sum() / (mask | wanted).sum())


def test_the_threshold_is_equation_7_over_the_whole_video() -> None:
    maps = random_video()
    heat = maps.heat_map("house", maps.size).double()
    mask = maps.mask("house", "threshold", tau=0.6)
    assert mask.dtype == torch.bool and torch.equal(mask, heat >= 0.6 * heat.max())


@pytest.mark.parametrize("method", [name for name in MASK_METHODS if name != "walk"])
def test_every_method_follows_the_object_through_the_frames(method: str) -> None:
    result = moving_house().mask_result("house", method)
    assert result.mask.shape == (4, 96, 128)
    for f in range(4):
        assert overlap(result.mask[f], truth()[f]) > 0.6, (result.method, f)


def test_the_default_finds_the_edge_in_every_frame_s_own_picture() -> None:
    mask = moving_house().mask("house")
    assert all(overlap(mask[f], truth()[f]) > 0.95 for f in range(4))


def test_a_frame_without_the_object_has_no_mask_and_a_faint_one_has() -> None:
    """A mask of each frame by itself would take noise for the object."""
    mask = moving_house((1.0, 0.6, 0.02, 0.02)).mask("house")
    assert overlap(mask[0], truth()[0]) > 0.9 and overlap(mask[1], truth()[1]) > 0.9
    assert not mask[3].any()


def test_masks_at_the_video_s_own_frames() -> None:
    maps = moving_house()
    mask = maps.mask("house", "threshold", frames=13)
    heat = maps.heat_map("house", maps.size, frames=13)
    assert torch.equal(mask, heat >= 0.4 * heat.max())
    assert maps.mask("house", size=(24, 32)).shape == (4, 24, 32)
    assert maps.mask("house", image=np.zeros((4, 48, 64, 3), np.uint8)).shape == (4, 48, 64)


def test_a_chosen_frame_s_mask_is_a_picture_s() -> None:
    one = moving_house().select(frames=[2])
    assert one.mask("house").shape == (96, 128) and overlap(one.mask("house"), truth()[2]) > 0.95


def test_attention_across_frames_carries_heat_along() -> None:
    """Two frames' maps know the house; the video's attention to itself leads from each frame's house to them."""
    maps = moving_house((1.0, 1.0, 0.02, 0.02))
    assert not maps.mask("house", "late")[2:].any()
    n = 12 * 16
    attention = torch.full((4 * n, 4 * n), 1e-6)
    attention.fill_diagonal_(1.0)
    houses = []
    for f, left in enumerate(LEFTS):
        place = torch.zeros(4, 12, 16, dtype=torch.bool)
        place[f, 4:8, left : left + 4] = True
        houses.append(place.flatten())
    for house in houses:
        attention[house] = 1e-6
        attention[house.nonzero(), (houses[0] | houses[1]).nonzero().T] = 1.0
    attention /= attention.sum(-1, keepdim=True)
    side = dataclasses.replace(maps.positive, self_attention={(12, 16): attention})
    walked = HeatMaps({"prompt": side}, maps.size).mask_result("house", "walk")
    assert walked.method == "walk"
    assert all(overlap(walked.mask[f], truth()[f]) > 0.8 for f in range(4))
    recorded = HeatMaps({"prompt": side}, maps.size)
    assert torch.equal(recorded.mask("house", "walk", frames=4), walked.mask), "as many frames as the maps have are theirs"
    with pytest.raises(DetailMissing, match="across frames was not recorded of these 13 frames"):
        recorded.mask("house", "walk", frames=13)
    with pytest.raises(DetailMissing, match="attention to itself across frames was not recorded"):
        maps.mask("house", "walk")


def test_parts_that_stand_in_one_frame_alone_are_dropped() -> None:
    masks = torch.zeros(4, 20, 20, dtype=torch.bool)
    for f in range(4):
        masks[f, 2:5, 2 + 3 * f : 5 + 3 * f] = True
    wanted = masks.clone()
    masks[1, 14:17, 14:17] = True
    assert torch.equal(without_lone_parts(masks, 2), wanted)
    alone = torch.zeros_like(masks)
    alone[1, 14:17, 14:17] = True
    assert torch.equal(without_lone_parts(alone, 2), alone), "nothing else is left"


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(BadArgument, match="`frames` is for videos"):
        made().mask("house", frames=3)
    with pytest.raises(BadArgument, match="The mask has 4 frames, and 2 pictures"):
        moving_house().mask("house", image=np.zeros((2, 96, 128, 3), np.uint8))
    with pytest.raises(BadArgument, match="There is no mask method"):
        moving_house().mask("house", "worst")
    with pytest.raises(DetailMissing, match="`with_video` gives them"):
        random_video().mask("house", "grabcut")
    with pytest.raises(DetailMissing, match="those of 13 frames are not known: ask for as many frames as the video has"):
        moving_house().mask("house", "grabcut", frames=13)
    assert random_video().mask("house").shape == (4, 48, 64)
