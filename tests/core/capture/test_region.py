"""A prompt that paints a rectangle or through a mask: its map lies there and nowhere else."""

from __future__ import annotations

import torch

from daam_core.capture.region import WHOLE, Area


def test_the_whole_picture_is_left_alone() -> None:
    maps = torch.rand(3, 4, 5)
    assert WHOLE.put(maps) is maps
    assert WHOLE.canvas((4, 5)) == (4, 5)


def test_a_rectangle_lies_at_its_place() -> None:
    """The right half of a 64 x 96 latent, at half resolution."""
    area = Area(top=0.25, left=0.5, height=0.5, width=0.5)
    maps = torch.ones(1, 16, 24)
    placed = area.put(maps)
    assert placed.shape == (1, 32, 48)
    assert float(placed[0, 8:24, 24:48].min()) == 1
    assert float(placed.sum()) == 16 * 24


def test_a_rectangle_at_the_border_stays_inside() -> None:
    """Rounding must not push a map out of the picture."""
    area = Area(top=5 / 11, left=10 / 17, height=6 / 11, width=7 / 17)
    placed = area.put(torch.ones(2, 3, 4))
    assert placed.shape[-2:] == area.canvas((3, 4))
    assert float(placed.sum()) == 2 * 3 * 4


def test_more_than_the_picture_is_cut_to_it() -> None:
    """A first pass of 16 x 8 positions of which the picture keeps the middle 10 rows, 4 above and 2 below left out."""
    area = Area(top=-4 / 10, left=0.0, height=16 / 10, width=1.0)
    maps = torch.arange(16.0)[:, None].expand(1, 16, 8)
    placed = area.put(maps)
    assert placed.shape == (1, 10, 8)
    torch.testing.assert_close(placed[0, :, 0], torch.arange(4.0, 14.0))


def test_a_mask_weighs_the_map() -> None:
    """Outside the mask a prompt has no say, so its words have no heat there."""
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    placed = Area(mask=mask).put(torch.ones(1, 4, 4))
    torch.testing.assert_close(placed[0], torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4))


def test_height_and_width_are_not_exchanged() -> None:
    """A low, wide rectangle in the lower left: half the height, a quarter of the width."""
    area = Area(top=0.5, left=0.0, height=0.5, width=0.25)
    placed = area.put(torch.ones(1, 4, 3))
    assert placed.shape == (1, 8, 12)
    assert float(placed[0, 4:, :3].min()) == 1
    assert float(placed.sum()) == 4 * 3
