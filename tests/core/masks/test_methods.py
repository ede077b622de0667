"""`maps.mask(word)`: every method by name, on maps and a picture drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from daam_core.errors import BadArgument, DetailMissing, WordNotFound
from daam_core.maps.heatmaps import HeatMaps
from daam_core.masks.methods import MASK_METHODS
from daam_core.masks.metrics import iou

from ..maps.test_heatmaps import changed, made

GRID = (16, 24)
SIZE = (128, 192)
HOUSE = (slice(32, 96), slice(16, 72))
TREE = (slice(40, 120), slice(120, 168))


def scene(picture: bool = True, walk: bool = True) -> HeatMaps:
    """A red box and a green box on grey, each with blurred heat over it; other words are nearly even."""
    maps = made(size=SIZE)
    image = np.full((*SIZE, 3), 210, np.uint8)
    image[HOUSE], image[TREE] = (200, 30, 30), (30, 150, 40)
    rows = torch.full((maps.prompt.num_channels, *GRID), 0.2)
    for words, place in ((("red", "house"), HOUSE), (("green", "tree"), TREE)):
        exact = torch.zeros(SIZE)
        exact[place] = 1
        heat = torch.nn.functional.adaptive_avg_pool2d(exact[None, None], GRID)
        heat = torch.nn.functional.avg_pool2d(heat, 3, stride=1, padding=1)[0, 0]
        for word in words:
            rows[maps.prompt.find(word).channels[0]] += 4 * heat
    n = GRID[0] * GRID[1]
    return changed(
        maps,
        sums={GRID: rows},
        time_weighted={GRID: rows},
        num_terms={GRID: 16},
        picture=image if picture else None,
        self_attention={GRID: torch.eye(n)} if walk else None,
    )


def exact(place: tuple[slice, slice]) -> torch.Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[place] = True
    return mask


@pytest.mark.parametrize("method", MASK_METHODS)
def test_every_method_finds_each_box(method: str) -> None:
    maps = scene()
    for word, place in (("house", HOUSE), ("tree", TREE)):
        mask = maps.mask(word, method)
        assert mask.shape == SIZE
        assert mask.dtype == torch.bool
        assert iou(mask, exact(place)) > 0.75, word


def test_the_default_reaches_the_pictures_edges() -> None:
    """Heat of 16 x 24 cells is off by cells; the picture's edge is met to the pixel."""
    maps = scene()
    for word, place in (("house", HOUSE), ("tree", TREE), ("red house", HOUSE)):
        assert iou(maps.mask(word), exact(place)) > 0.97, word


def test_equation_7_by_hand() -> None:
    maps = scene()
    heat = maps.heat_map("house", SIZE)
    assert torch.equal(maps.mask("house", method="threshold", tau=0.4), heat >= 0.4 * heat.max())


@pytest.mark.parametrize("method", ["best", "threshold", "otsu", "compete"])
def test_without_picture_and_self_attention_the_heat_alone_decides(method: str) -> None:
    mask = scene(picture=False, walk=False).mask("house", method)
    assert mask.shape == SIZE
    assert iou(mask, exact(HOUSE)) > 0.7


def test_what_a_method_needs_is_said() -> None:
    bare = scene(picture=False, walk=False)
    with pytest.raises(DetailMissing, match="image="):
        bare.mask("house", "grabcut")
    with pytest.raises(DetailMissing, match="self_attention=True"):
        bare.mask("house", "walk")
    with pytest.raises(BadArgument, match="threshold"):
        bare.mask("house", "magic")
    with pytest.raises(BadArgument, match="tau"):
        bare.mask("house", "threshold", tau=2.0)
    with pytest.raises(WordNotFound, match="house"):
        bare.mask("zebra")


def test_a_mask_can_have_another_size_and_another_picture() -> None:
    maps = scene()
    assert maps.mask("house", size=(64, 96)).shape == (64, 96)
    shifted = np.roll(np.asarray(maps.picture), 6, 1)  # by less than a cell: the edge follows the picture that is given
    assert iou(maps.mask("house", image=shifted), exact(HOUSE).roll(6, 1)) > 0.97
    assert iou(maps.mask("house"), exact(HOUSE)) > 0.97


def test_self_attention_of_a_coarser_grid_that_divides_nothing_still_serves() -> None:
    """264 x 320 pixels give grids of 33 x 40 and 17 x 20: no whole division, no crash."""
    maps = changed(scene(), self_attention={(7, 11): torch.eye(77)})
    assert iou(maps.mask("house"), exact(HOUSE)) > 0.6


def test_a_place_word_takes_no_place_by_any_method() -> None:
    """Words that stand for no object are left out of every competition, not of the default's alone."""
    maps = scene()
    rows = maps.sums[GRID].clone()
    place = maps.prompt.find("and").channels[0]
    rows[place] = 0.2
    rows[place, 4:8, 2:5] += 0.05  # faint, and nowhere hotter than over the house
    there = changed(maps, sums={GRID: rows}, time_weighted={GRID: rows})
    for method in MASK_METHODS:
        assert torch.equal(there.mask("house", method, competitors=["tree", "and"]), there.mask("house", method)), method


@pytest.mark.parametrize("method", ["best", "late", "walk"])
def test_late_steps_decide_where_they_differ_from_the_sum(method: str) -> None:
    """Early steps looked at both boxes alike, late ones at the house alone."""
    maps = scene()
    rows = maps.sums[GRID].clone()
    house = maps.prompt.find("house").channels[0]
    rows[house] += rows[maps.prompt.find("tree").channels[0]]
    there = changed(maps, sums={GRID: rows})
    assert iou(there.mask("house", "threshold", competitors=[]), exact(HOUSE) | exact(TREE)) > 0.7
    mask = there.mask("house", method, competitors=[])
    assert iou(mask, exact(HOUSE)) > 0.75
    assert not (mask & exact(TREE)).any()
