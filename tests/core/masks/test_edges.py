"""Snapping to the picture's edges and the default mask, on drawn pictures whose exact masks are known."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from daam_core import masks
from daam_core.errors import BadArgument
from daam_core.masks.edge_smoothing import links, surfaces
from daam_core.masks.metrics import iou

Picture = NDArray[np.uint8]
SKY, RED, BLUE, WHITE = (190, 228, 250), (214, 40, 40), (40, 80, 214), (250, 250, 245)


def canvas(height: int, width: int) -> Picture:
    return np.full((height, width, 3), SKY, np.uint8)


def paint(picture: Picture, top: int, left: int, bottom: int, right: int, colour: tuple[int, int, int]) -> Tensor:
    """A filled box; returns its exact mask."""
    picture[top:bottom, left:right] = colour
    mask = torch.zeros(picture.shape[:2], dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def heat_of(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """What a accumulator would give: the mask in coarse cells, blurred over the neighbouring ones."""
    coarse = torch.nn.functional.adaptive_avg_pool2d(mask[None, None].float(), grid)
    return torch.nn.functional.avg_pool2d(coarse, 3, stride=1, padding=1, count_include_pad=False)[0, 0]


def noisy(picture: Picture, seed: int, strength: float = 8.0) -> Picture:
    """Light that falls off, grain, and a little blur: nothing is flat any more."""
    rng = np.random.default_rng(seed)
    h, w = picture.shape[:2]
    light = 1.1 - 0.3 * np.linspace(0, 1, h)[:, None, None] + 0.1 * np.sin(np.linspace(0, 5, w))[None, :, None]
    grain = rng.normal(0, strength, (h, w, 3))
    return cv2.GaussianBlur((picture * light + grain).clip(0, 255).astype(np.uint8), (0, 0), 0.7).astype(np.uint8)


# -- guided filter -----------------------------------------------------------------------------------------------------


def test_the_guided_filter_moves_a_blurred_edge_to_the_pictures() -> None:
    picture = canvas(96, 144)
    exact = paint(picture, 21, 35, 70, 101, RED)
    heat = heat_of(exact, (12, 18))
    before = iou(masks.resized(heat, (96, 144)) > 0.5, exact)
    after = iou(masks.snap_guided(heat, picture) > 0.5, exact)
    assert after > before + 0.05
    assert after > 0.95


def test_the_guided_filter_keeps_a_constant_map_and_the_maps_scale() -> None:
    picture = noisy(canvas(40, 70), 0)
    assert torch.allclose(masks.snap_guided(torch.full((4, 7), 3.0), picture), torch.full((40, 70), 3.0), atol=1e-3)
    heat = torch.rand(2, 4, 7, generator=torch.Generator().manual_seed(1))
    one = masks.snap_guided(heat, picture)
    assert one.shape == (2, 40, 70)
    assert torch.allclose(masks.snap_guided(1000 * heat, picture), 1000 * one, rtol=1e-3, atol=0.5)
    assert torch.allclose(masks.snap_guided(heat[1], picture), one[1], atol=1e-5)


def test_the_guided_filter_is_the_published_formula_in_one_window() -> None:
    """With a window as large as the picture it is one linear regression of the map on the colours."""
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    weights = np.array([0.2, -0.5, 0.9])
    heat = torch.from_numpy((picture / 255.0) @ weights + 0.3).float()
    done = masks.snap_guided(heat, picture, radius=2, eps=1e-9)
    assert torch.allclose(done, heat, atol=1e-3)  # a linear function of colour is its own best fit everywhere


# -- GrabCut -----------------------------------------------------------------------------------------------------------


def test_grabcut_finds_a_box_from_coarse_heat_to_the_pixel() -> None:
    picture = canvas(96, 144)
    exact = paint(picture, 21, 35, 70, 101, RED)
    assert torch.equal(masks.snap_grabcut(heat_of(exact, (12, 18)), picture), exact)
    assert iou(masks.snap_grabcut(heat_of(exact, (12, 18)), noisy(picture, 3)), exact) > 0.95


def test_grabcut_is_repeatable_and_leaves_opencvs_random_numbers_alone() -> None:
    picture = noisy(canvas(64, 64), 4, 25.0)
    exact = paint(picture, 10, 12, 40, 50, RED)
    heat = heat_of(exact, (8, 8))

    def draw() -> NDArray[np.uint8]:
        return cv2.randu(np.zeros((4, 4), np.uint8), 0, 255).astype(np.uint8)

    cv2.setRNGSeed(77)
    expected = [draw(), draw()]
    cv2.setRNGSeed(77)
    first = draw()
    done = masks.snap_grabcut(heat, picture)
    assert np.array_equal(first, expected[0])
    assert np.array_equal(draw(), expected[1])
    cv2.setRNGSeed(5)
    assert torch.equal(masks.snap_grabcut(heat, picture), done)


@pytest.mark.parametrize(
    "heat",
    [
        torch.zeros(4, 6),
        torch.ones(4, 6),
        torch.eye(4)[:, :3],
        torch.tensor([[0.0, 1.0]]),
        torch.nn.functional.pad(torch.ones(1, 1), (5, 0, 3, 0)),
        1 - torch.nn.functional.pad(torch.ones(1, 1), (5, 0, 3, 0)),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (33, 50)])
def test_no_seeds_and_no_picture_are_too_odd(heat: Tensor, size: tuple[int, int]) -> None:
    for picture in (canvas(*size), np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)):
        assert masks.snap_grabcut(heat, picture).shape == size
        assert masks.snap_guided(heat, picture).isfinite().all()
        mask = masks.best(heat[None], picture=picture)
        assert mask.shape == size
        assert mask.dtype == torch.bool


def test_where_limits_grabcuts_foreground_seeds() -> None:
    picture = canvas(64, 128)
    left, right = paint(picture, 16, 10, 48, 50, RED), paint(picture, 16, 78, 48, 118, RED)
    heat = heat_of(left | right, (8, 16))
    where = torch.zeros(8, 16, dtype=torch.bool)
    where[:, :8] = True
    done = masks.snap_grabcut(torch.stack([heat, heat]), picture, where=torch.stack([where, ~where]))
    assert iou(done[0] & ~right, left) > 0.97
    assert iou(done[1] & ~left, right) > 0.97


def test_what_grabcut_cannot_use_is_refused() -> None:
    heat, picture = torch.rand(4, 4), canvas(16, 16)
    for options in ({"sure": 0.2}, {"background": 1.2}, {"rounds": 0}, {"where": torch.ones(3, 3, dtype=torch.bool)}):
        with pytest.raises(BadArgument):
            masks.snap_grabcut(heat, picture, **options)  # type: ignore[arg-type]
    for bad in (picture.astype(np.float32), picture[..., 0], picture[:0]):
        with pytest.raises(BadArgument, match="uint8"):
            masks.snap_grabcut(heat, bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "limits"),
    [
        (lambda: masks.otsu(torch.rand(4, 4), 100_000), "from 2 to 65536, got 100000"),
        (lambda: masks.walk(torch.rand(2, 2), torch.eye(4), 5000), "from 0 to 1000, got 5000"),
        (lambda: masks.drop_small(torch.ones(2, 2, dtype=torch.bool), -1), "of at least 0, got -1"),
    ],
)
def test_a_whole_number_beyond_its_limit_is_told_with_both(call: Callable[[], object], limits: str) -> None:
    with pytest.raises(BadArgument, match=f"must be a whole number {limits}"):
        call()


# -- the default mask --------------------------------------------------------------------------------------------------


def house(height: int = 128, width: int = 192) -> tuple[Picture, Tensor, Tensor]:
    """A red house with white windows and a chimney, on sky: picture, mask, and heat that is faint on the chimney."""
    picture = canvas(height, width)
    wall = paint(picture, 50, 40, 110, 110, RED)
    chimney = paint(picture, 30, 90, 50, 100, (120, 75, 40))
    paint(picture, 62, 50, 78, 64, WHITE)
    paint(picture, 62, 84, 78, 98, WHITE)
    return picture, wall | chimney, heat_of(wall, (16, 24)) + 0.3 * heat_of(chimney, (16, 24))


def test_the_default_mask_takes_windows_and_chimney_with_the_house() -> None:
    picture, exact, heat = house()
    mask = masks.best(heat[None], picture=picture)
    assert mask.dtype == torch.bool
    assert iou(mask, exact) > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_light_and_grain_do_not_make_snapping_worse_than_not_snapping(seed: int) -> None:
    picture, exact, heat = house()
    plain = iou(masks.best(heat[None], size=(128, 192)), exact)
    assert iou(masks.best(heat[None], picture=noisy(picture, seed)), exact) > plain


def test_two_objects_of_one_colour_are_told_apart_by_heat() -> None:
    picture = canvas(128, 192)
    first, second = paint(picture, 20, 16, 90, 80, RED), paint(picture, 40, 100, 120, 170, RED)
    a, b = heat_of(first, (16, 24)), heat_of(second, (16, 24))
    maps = torch.stack([a + 0.4 * b, b + 0.3 * a])  # each word leaks into the other's object
    assert iou(masks.best(maps, 0, picture=picture), first) > 0.98
    assert iou(masks.best(maps, 1, picture=picture), second) > 0.98
    assert torch.equal(masks.best(maps, -1, picture=picture), masks.best(maps.flip(0), 0, picture=picture))


def test_faint_words_and_the_same_map_again_are_no_rivals() -> None:
    _, _, heat = house()
    other = heat.roll(10, 1)
    adjective, everywhere = 0.1 * other, 1 - heat
    maps = torch.stack([heat, other, adjective, everywhere, 1.2 * heat, torch.zeros_like(heat)])
    assert masks.rivals(maps, 0) == [1]
    assert masks.rivals(maps, 1) == [0, 4]
    assert masks.rivals(maps, 5) == []


def test_alike_objects_leak_into_each_other_and_keep_their_own() -> None:
    """Two purple objects: each word is two thirds as hot on the other's object, and wider there at its rim."""
    picture = canvas(128, 192)
    first, second = paint(picture, 10, 16, 60, 80, BLUE), paint(picture, 70, 110, 120, 170, BLUE)
    a, b = heat_of(first, (16, 24)), heat_of(second, (16, 24))
    blurred = torch.nn.functional.avg_pool2d(a[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    maps = torch.stack([a, b + 0.8 * blurred])
    assert masks.rivals(maps, 0) == [1]
    assert iou(masks.best(maps, 0, picture=picture), first) > 0.98
    assert iou(masks.best(maps, 1, picture=picture), second) > 0.98


def test_a_picture_that_contradicts_the_heat_is_not_believed() -> None:
    """A word about half of an even surface: no edge to snap to, so the heat's own outline is given."""
    rng = np.random.default_rng(6)
    picture = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    exact = torch.zeros(64, 96, dtype=torch.bool)
    exact[16:48, 24:72] = True
    heat = heat_of(exact, (8, 12))
    plain = masks.best(heat[None], size=(64, 96))
    snapped = masks.best(heat[None], picture=picture)
    assert iou(snapped, exact) > iou(plain, exact) - 0.1


def test_self_attention_of_the_same_or_a_coarser_grid_is_used() -> None:
    picture, exact, heat = house()
    for grid in ((16, 24), (8, 12)):
        n = grid[0] * grid[1]
        mask = masks.best(heat[None], picture=picture, self_attention=torch.eye(n))
        assert iou(mask, exact) > 0.9
    with pytest.raises(BadArgument, match="16x24"):
        masks.best(heat[None], self_attention=torch.eye(10))


def test_without_a_picture_the_heat_alone_decides_at_any_size() -> None:
    _, _, heat = house()
    assert torch.equal(masks.best(heat[None]), masks.minmax(heat) >= masks.DEFAULT.level)
    assert masks.best(heat[None], size=(50, 70)).shape == (50, 70)
    assert not masks.best(torch.zeros(1, 4, 4), size=(8, 8)).any()


def test_arguments_that_make_no_sense_are_refused() -> None:
    heat = torch.rand(2, 4, 4)
    calls: tuple[Callable[[], Tensor], ...] = (
        lambda: masks.best(heat[0]),
        lambda: masks.best(heat, 2),
        lambda: masks.best(heat, -3),
        lambda: masks.best(heat, size=(0, 5)),
        lambda: masks.best(heat, picture=np.zeros((8, 8), np.uint8)),
    )
    for call in calls:
        with pytest.raises(BadArgument):
            call()


def test_the_default_mask_is_repeatable() -> None:
    picture, _, heat = house()
    picture = noisy(picture, 7)
    assert torch.equal(masks.best(heat[None], picture=picture), masks.best(heat[None], picture=picture))


@pytest.mark.parametrize("side", [512, 1024])
def test_large_pictures_keep_their_edges_and_cost_bounded_time(side: int) -> None:
    picture, exact, heat = house()
    size = (side * 2 // 3, side)
    large = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    truth = torch.nn.functional.interpolate(exact[None, None].float(), size, mode="nearest")[0, 0] > 0
    start = time.process_time()
    mask = masks.best(heat[None], picture=large)
    assert time.process_time() - start < 5
    assert mask.shape == size
    assert iou(mask, truth) > 0.97
    assert iou(masks.snap_grabcut(heat, large), truth) > 0.9


def test_the_guard_gives_the_maps_own_mask_where_the_picture_misleads() -> None:
    """Heat in one corner of a wide red field, which all looks like object: without the guard the whole field were the mask."""
    picture = canvas(128, 192)
    field = paint(picture, 10, 10, 118, 182, RED)
    heat = 0.25 * torch.nn.functional.adaptive_avg_pool2d(field[None, None].float(), (16, 24))[0, 0]
    heat[3:6, 3:6] = 1.0
    plain = masks.best(heat[None], size=(128, 192))
    unguarded = masks.best(heat[None], picture=picture, settings=dataclasses.replace(masks.DEFAULT, agreement=0.0))
    assert iou(unguarded, field) > 0.9
    guarded = masks.best(heat[None], picture=picture)
    assert iou(guarded, field) < 0.35
    assert iou(guarded, plain) > iou(unguarded, plain) + 0.2


def stemmed() -> tuple[Picture, Tensor, Tensor]:
    """A cap with heat on stripes; the stem under it is warm at the top and cold at its end."""
    picture = canvas(128, 128)
    picture[:, np.arange(128) // 8 % 2 == 1] = WHITE
    cap = paint(picture, 40, 36, 66, 92, RED)
    stem = paint(picture, 66, 58, 110, 70, (226, 188, 138))
    heat = heat_of(cap, (16, 16))
    heat[8, 7:9] = 0.6
    return picture, cap | stem, heat


def test_the_cold_end_of_a_part_does_not_teach_the_ground_its_colour() -> None:
    picture, exact, heat = stemmed()
    assert masks.minmax(heat)[12:, 7].max() < masks.DEFAULT.cold  # the stem's end is as cold as the ground
    mask = masks.best(heat[None], picture=picture)
    assert iou(mask, exact) > 0.97
    blind = masks.best(heat[None], picture=picture, settings=dataclasses.replace(masks.DEFAULT, part=0.0))
    assert not blind[90:110, 58:70].any()


def test_a_surface_that_runs_to_the_border_is_ground_however_warm_it_is() -> None:
    picture, _, heat = stemmed()
    paint(picture, 66, 58, 128, 70, (226, 188, 138))
    assert not masks.best(heat[None], picture=picture)[112:, 58:70].any()


def test_surfaces_are_those_that_a_walk_over_links_reaches() -> None:
    rng = np.random.default_rng(9)
    colours = rng.integers(0, 2, (12, 17, 1)).astype(np.float32) * 40
    found = surfaces(links(colours, 10.0))
    numbers: dict[int, int] = {}
    for start in np.ndindex(12, 17):
        reached, waiting = {start}, [start]
        while waiting:
            y, x = waiting.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= near[0] < 12 and 0 <= near[1] < 17
                if inside and near not in reached and colours[near] == colours[start]:
                    reached.add(near)
                    waiting.append(near)
        assert {(int(y), int(x)) for y, x in np.argwhere(found == found[start])} == reached
        numbers[int(found[start])] = len(reached)
    assert min(numbers) == 1
    assert sum(numbers.values()) == 12 * 17
