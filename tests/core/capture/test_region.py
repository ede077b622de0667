"""A prompt that paints a rectangle or through a mask: its map lies there and nowhere else."""

from __future__ import annotations

import pytest
import torch

from daam_core import HeatMaps
from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.recording import Recording
from daam_core.capture.region import WHOLE, Area
from daam_core.errors import NothingRecorded
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer


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


def test_each_picture_of_a_batch_has_its_own_mask() -> None:
    """Two masks for three pictures: the third has the first again."""
    masks = torch.zeros(2, 8, 8)
    masks[0, :4], masks[1, 4:] = 1, 1
    rows = [Area(mask=masks).put(torch.ones(1, 4, 4), picture)[0, :, 0].tolist() for picture in range(3)]
    assert rows == [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]]


def test_height_and_width_are_not_exchanged() -> None:
    """A low, wide rectangle in the lower left: half the height, a quarter of the width."""
    area = Area(top=0.5, left=0.0, height=0.5, width=0.25)
    placed = area.put(torch.ones(1, 4, 3))
    assert placed.shape == (1, 8, 12)
    assert float(placed[0, 4:, :3].min()) == 1
    assert float(placed.sum()) == 4 * 3


def recorded(*calls: tuple[tuple[int, int], Area]) -> HeatMaps:
    """Maps of two steps in which one layer attends once for each grid and area, heads apart."""
    ids = tokenizer()("a red house").input_ids
    prompt = Prompt.from_ids(ids, tokenizer(), text="a red house")
    recording = Recording(StoreOptions(heads=True))
    group = recording.add_group("prompt", range(2), [prompt, prompt])
    layer, noise = recording.layer(0, "0", "mid", 2, 1.0), torch.Generator().manual_seed(0)
    places = [(grid, BatchSlice(0, 2, 0, area)) for grid, area in calls]
    for _ in range(2):
        for grid, where in places:
            q, k = torch.randn(2, grid[0] * grid[1], 8, generator=noise), torch.randn(2, len(ids), 8, generator=noise)
            group.accumulator.add_cross(layer, grid, q, k, 2, 1.0, where)
        recording.end_step(torch.ones(1))
    return recording.finish(1, (64, 96))


def test_heads_lie_where_their_prompt_does() -> None:
    """The heads of a rectangle were those of a picture of its own, and those of a mask had none: together they are the map."""
    mask = torch.zeros(8, 12)
    mask[:, :6] = 1
    left, right = Area(0.0, 0.0, 1.0, 0.5), Area(0.5, 0.5, 0.5, 0.5)
    for calls in ([((4, 6), right)], [((8, 6), left), ((4, 6), right), ((8, 12), WHOLE)], [((8, 12), Area(mask=mask))]):
        maps = recorded(*calls)
        assert maps.grid == (8, 12) == maps.layers[0].grid
        each = [maps.select(heads=[head])["house"] for head in (0, 1)]
        torch.testing.assert_close(sum(each), maps["house"], rtol=1e-5, atol=1e-5)
        assert float(each[0].std()) > 0


def test_heads_of_a_layer_that_changes_its_grid_are_refused() -> None:
    """Deep Shrink lets inner layers work on a smaller grid in the first steps."""
    with pytest.raises(NothingRecorded, match="grids of 8x12 and of 4x6, so its heads cannot be kept apart"):
        recorded(((8, 12), WHOLE), ((4, 6), WHOLE))
