"""Masks by level, clean-up and the self-attention walk, on maps whose right answer is known by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from daam_core import masks
from daam_core.errors import BadArgument

RAMP = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])  # 2 x 3: not square on purpose


def box(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


# -- levels ------------------------------------------------------------------------------------------------------------


def test_threshold_is_equation_7_with_its_equals_sign() -> None:
    assert masks.threshold(RAMP, 0.4).tolist() == [[False, False, True], [True, True, True]]  # 2 = 0.4 * 5 is in
    assert masks.threshold(RAMP, 0.41).tolist() == [[False, False, False], [True, True, True]]
    assert masks.threshold(RAMP, 1.0).sum() == 1
    assert masks.threshold(RAMP, 0.0).all()


def test_threshold_of_a_constant_map_takes_all_and_of_an_empty_one_nothing() -> None:
    assert masks.threshold(torch.full((2, 3), 0.7), 1.0).all()
    assert not masks.threshold(torch.zeros(2, 3), 0.0).any()


def test_every_map_of_a_batch_has_its_own_maximum() -> None:
    batch = torch.stack([RAMP, 100 * RAMP, torch.zeros(2, 3)]).reshape(3, 1, 2, 3)
    done = masks.threshold(batch, 0.5)
    assert done.shape == (3, 1, 2, 3)
    assert done.flatten(1).sum(1).tolist() == [3, 3, 0]
    for one, alone in zip(done, batch, strict=True):
        assert torch.equal(one, masks.threshold(alone, 0.5))


def test_minmax_stretches_to_0_and_1_and_a_constant_map_points_nowhere() -> None:
    assert torch.allclose(masks.minmax(RAMP - 7), RAMP / 5)
    assert not masks.minmax(torch.full((2, 3), 4.0)).any()
    assert masks.minmax(RAMP.double()).dtype == torch.float32


def test_otsu_cuts_between_two_populations_of_any_scale() -> None:
    rng = torch.Generator().manual_seed(0)
    low, high = torch.rand(60, generator=rng), 6 + torch.rand(20, generator=rng)
    bimodal = torch.cat([low, high])[torch.randperm(80, generator=rng)].reshape(8, 10)
    for scale, shift in ((1.0, 0.0), (1e-4, -3e-5), (1e4, 7.0)):
        assert torch.equal(masks.otsu(bimodal * scale + shift), bimodal > 3)
    assert masks.otsu(torch.stack([bimodal, -bimodal])).sum((1, 2)).tolist() == [20, 60]


def test_otsu_agrees_with_opencv_on_bytes() -> None:
    import cv2

    picture = np.random.default_rng(1).normal(100, 30, (40, 60)).clip(0, 255)
    picture[10:20, 20:50] += 90
    bytes_ = picture.clip(0, 255).astype(np.uint8)
    bytes_[0, 0], bytes_[0, 1] = 0, 255  # so that min-max leaves the 256 levels as they are
    _, theirs = cv2.threshold(bytes_, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert np.array_equal(masks.otsu(torch.from_numpy(bytes_)).numpy(), theirs > 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 4)])
def test_a_constant_map_has_no_two_classes_and_no_winner(size: tuple[int, int]) -> None:
    flat = torch.full(size, 0.25)
    assert not masks.otsu(flat).any()
    assert not masks.compete(flat[None]).any()
    assert not masks.soft(flat).any()


def test_competition_gives_each_pixel_to_the_hottest_word_or_to_the_background() -> None:
    left = torch.tensor([[10.0, 8.0, 4.0, 0.0, 1.0]])
    right = torch.tensor([[0.0, 0.01, 0.06, 0.1, 0.02]])  # a hundred times fainter, and still it wins its own place
    both = masks.compete(torch.stack([left, right]), background=0.3)
    assert both.tolist() == [[[True, True, False, False, False]], [[False, False, True, True, False]]]
    assert masks.winners(torch.stack([left, right]), 0.3).tolist() == [[0, 0, 1, 1, -1]]


def test_competitors_never_share_a_pixel_and_the_first_wins_a_tie() -> None:
    heat = torch.rand(2, 4, 6, 9, generator=torch.Generator().manual_seed(3))
    assert masks.compete(heat, 0.1).sum(-3).max() == 1
    same = torch.stack([RAMP, RAMP])
    assert masks.winners(same, 0.5)[1].tolist() == [0, 0, 0]


def test_soft_is_a_linear_ramp_around_the_level() -> None:
    done = masks.soft(RAMP, tau=0.5, width=0.4)
    assert torch.allclose(done, torch.tensor([[0.0, 0.0, 0.25], [0.75, 1.0, 1.0]]))
    assert torch.allclose(masks.soft(RAMP, 0.5, 1.0), RAMP / 5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "method",
    [masks.threshold, masks.otsu, masks.soft, masks.minmax, lambda m: masks.compete(m[None]), lambda m: masks.best(m[None])],
)
def test_maps_with_nan_are_refused_with_a_sentence(method: Callable[[Tensor], Tensor], bad: float) -> None:
    broken = RAMP.clone()
    broken[1, 1] = bad
    with pytest.raises(BadArgument, match="1 values that are NaN or infinite"):
        method(broken)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0)])
def test_what_is_no_map_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadArgument, match=str(list(shape))[1:-1]):
        masks.threshold(torch.zeros(shape))


@pytest.mark.parametrize(
    "call",
    [
        lambda: masks.threshold(RAMP, 1.01),
        lambda: masks.threshold(RAMP, math.nan),
        lambda: masks.compete(RAMP[None], -0.1),
        lambda: masks.compete(RAMP),
        lambda: masks.otsu(RAMP, bins=1),
        lambda: masks.soft(RAMP, width=0),
        lambda: masks.grow(RAMP > 2, -1),
        lambda: masks.grow(RAMP, 1),
        lambda: masks.feather(RAMP > 2, math.inf),
        lambda: masks.drop_small(RAMP > 2, -3),
    ],
)
def test_arguments_out_of_range_are_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(BadArgument):
        call()


# -- clean-up ----------------------------------------------------------------------------------------------------------


def test_grow_makes_a_disc_of_one_pixel() -> None:
    mask = box(9, 11, 4, 5, 5, 6)
    y, x = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    for radius in (0.0, 1.0, 1.5, 3.0):
        assert torch.equal(masks.grow(mask, radius), (y - 4) ** 2 + (x - 5) ** 2 <= radius**2)


def test_shrink_takes_a_rim_but_not_at_the_pictures_border() -> None:
    assert torch.equal(masks.shrink(box(9, 11, 2, 2, 8, 9), 1), box(9, 11, 3, 3, 7, 8))
    assert torch.equal(masks.shrink(box(9, 11, 0, 0, 5, 11), 2), box(9, 11, 0, 0, 3, 11))
    assert masks.shrink(torch.ones(3, 4, dtype=torch.bool), 50).all()


def test_shrink_is_grow_of_the_rest() -> None:
    mask = torch.rand(2, 12, 7, generator=torch.Generator().manual_seed(4)) > 0.4
    assert torch.equal(masks.shrink(mask, 1.5), masks.invert(masks.grow(masks.invert(mask), 1.5)))


def test_growing_nothing_or_everything_changes_nothing() -> None:
    batch = torch.stack([torch.zeros(4, 5, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)])
    assert torch.equal(masks.grow(batch, 3), batch)
    assert torch.equal(masks.feather(batch, 3), batch.float())


def test_feather_is_half_on_the_edge_and_linear_over_the_radius() -> None:
    half_plane = box(1, 10, 0, 5, 1, 10)
    expected = [0.0, 0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0, 1.0]
    assert torch.allclose(masks.feather(half_plane, 2)[0], torch.tensor(expected), atol=1e-6)
    assert torch.equal(masks.feather(half_plane, 0), half_plane.float())


def test_fill_holes_fills_what_the_border_cannot_reach() -> None:
    ring = box(10, 12, 2, 2, 9, 9) & ~box(10, 12, 4, 4, 6, 7)  # hole of 6 pixels
    assert torch.equal(masks.fill_holes(ring), box(10, 12, 2, 2, 9, 9))
    assert torch.equal(masks.fill_holes(ring, largest=6), box(10, 12, 2, 2, 9, 9))
    assert torch.equal(masks.fill_holes(ring, largest=5), ring)
    open_ring = ring & ~box(10, 12, 4, 0, 5, 4)
    assert torch.equal(masks.fill_holes(open_ring), open_ring)
    bay = box(4, 6, 0, 0, 4, 6) & ~box(4, 6, 1, 4, 3, 6)
    assert torch.equal(masks.fill_holes(torch.stack([bay, ~bay])), torch.stack([bay, ~bay]))


def test_a_diagonal_gap_does_not_open_a_hole() -> None:
    diamond = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    assert masks.fill_holes(diamond).sum() == 5


def test_drop_small_keeps_parts_of_the_area_given() -> None:
    mask = box(9, 9, 0, 0, 2, 2) | box(9, 9, 4, 4, 7, 7) | box(9, 9, 7, 7, 8, 8)  # 4, and 9 + 1 by a corner
    assert masks.drop_small(mask, 5).sum() == 10
    assert masks.drop_small(mask, 10).sum() == 10
    assert not masks.drop_small(mask, 11).any()
    assert torch.equal(masks.drop_small(mask, 0), mask)


def test_invert_knows_bool_and_soft_masks() -> None:
    assert torch.equal(masks.invert(RAMP > 2), RAMP <= 2)
    assert torch.allclose(masks.invert(RAMP / 5), 1 - RAMP / 5)


@pytest.mark.parametrize(
    "change", [lambda m: masks.grow(m, 1), lambda m: masks.fill_holes(m), lambda m: masks.drop_small(m, 2)]
)
def test_clean_up_of_a_batch_is_that_of_each(change: Callable[[Tensor], Tensor]) -> None:
    batch = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(5)) > 0.5
    done = change(batch)
    assert done.shape == batch.shape
    assert done.dtype == torch.bool
    assert torch.equal(done[1, 2], change(batch[1, 2]))
    assert change(batch[:0]).shape == (0, 3, 6, 5)


# -- walk --------------------------------------------------------------------------------------------------------------


def test_one_step_takes_the_mean_of_what_a_position_looked_at() -> None:
    heat = torch.tensor([[1.0, 0.0, 3.0]])
    attention = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]])
    assert torch.allclose(masks.walk(heat, attention, power=1), torch.tensor([[0.5, 0.0, 1.75]]))
    # squared, the last row is 1/16, 1/16, 4/16 -> 1/6, 1/6, 4/6
    assert torch.allclose(masks.walk(heat, attention, power=2), torch.tensor([[0.5, 0.0, 1 / 6 + 2.0]]))
    assert torch.allclose(masks.walk(heat, attention, steps=2, power=1), torch.tensor([[0.25, 0.0, 1.0]]))
    assert torch.equal(masks.walk(heat, attention, steps=0), heat)


def test_heat_spreads_over_the_object_and_not_beyond() -> None:
    inside = box(4, 6, 1, 2, 4, 5)
    same = (inside.flatten()[:, None] == inside.flatten()[None]).float()
    attention = same / same.sum(-1, keepdim=True)
    heat = torch.zeros(4, 6)
    heat[2, 3] = 9.0  # one cell knows the word; the model knows which cells belong together
    assert torch.allclose(masks.walk(heat, attention), inside.float())


def test_a_batch_walks_each_with_its_own_attention() -> None:
    rng = torch.Generator().manual_seed(6)
    maps, attention = torch.rand(2, 5, 3, 4, generator=rng), torch.rand(2, 12, 12, generator=rng)
    done = masks.walk(maps, attention)
    assert done.shape == maps.shape
    assert torch.allclose(done[1, 3], masks.walk(maps[1, 3], attention[1]), atol=1e-6)
    assert torch.allclose(masks.walk(torch.ones(2, 5, 3, 4), attention), torch.ones(2, 5, 3, 4), atol=1e-6)


def test_a_position_that_looked_nowhere_keeps_its_heat() -> None:
    attention = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert masks.walk(torch.tensor([[2.0], [5.0]]), attention).tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("attention", [torch.zeros(5, 5), torch.zeros(6, 5), torch.full((6, 6), math.nan), -torch.ones(6, 6)])
def test_self_attention_that_does_not_fit_is_refused(attention: Tensor) -> None:
    with pytest.raises(BadArgument, match=r"elf-attention|self_attention"):
        masks.walk(RAMP, attention)


# -- rivals ------------------------------------------------------------------------------------------------------------


def test_a_flat_map_is_not_stretched_to_an_object() -> None:
    """A word that lies evenly over the picture, with a ripple of a thousandth, takes no place from a faint true one."""
    ripple = 1 + 1e-3 * torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    true = torch.zeros(6, 8)
    true[2:4, 3:6] = 0.01
    won = masks.winners(torch.stack([ripple, true]), 0.4)
    assert torch.equal(won == 1, true > 0)
    assert not (won == 0).any()
    assert float(masks.stretched(ripple).max()) == pytest.approx(10 * float(ripple.max() - ripple.min()) / float(ripple.max()))
    assert torch.allclose(masks.stretched(RAMP), masks.minmax(RAMP))


def test_competition_is_with_rivals_only_and_equation_7_without() -> None:
    """A place word, hot on the rim of the object and faint as a whole, takes nothing; another object takes its own."""
    own = torch.zeros(8, 12)
    own[2:6, 1:5], own[2:6, 5] = 1.0, 0.6
    place, other = torch.zeros(8, 12), torch.zeros(8, 12)
    place[:, 5] = 0.05  # all words but rivals would win column 5: it is their maximum
    other[2:6, 7:11], other[2:6, 5] = 1.2, 0.9
    assert torch.equal(masks.compete_with_rivals(torch.stack([own, place])), masks.threshold(own))
    alone = masks.compete(torch.stack([own, place]))[0]
    assert not alone[:, 5].any()
    both = masks.compete_with_rivals(torch.stack([own, place, other]))
    assert torch.equal(both, masks.threshold(own) & (masks.winners(torch.stack([own, other]), 0.0) == 0))
    assert not both[:, 5].any() and both[2:6, 1:5].all()


# -- clean-up ----------------------------------------------------------------------------------------------------------


def test_cleanup_drops_parts_below_its_share_of_the_picture_at_any_size() -> None:
    """A part of 4 % stays at 4 % and goes at 4.1 %, whatever the picture's size; 20px is the same rule in pixels."""
    for side in (10, 100):
        mask = box(side, side, 0, 0, side // 5, side // 5) | box(side, side, side // 2, 0, side, side)
        large = box(side, side, side // 2, 0, side, side)
        assert torch.equal(masks.Cleanup(smallest=4.0).apply(mask), mask)
        assert torch.equal(masks.Cleanup(smallest=4.1).apply(mask), large)
    twenty = box(30, 50, 0, 0, 4, 5) | box(30, 50, 10, 10, 20, 20)
    for pixels, kept in ((20, 120), (21, 100), (0, 120)):
        share = masks.per_cent(pixels, (30, 50))
        assert int(masks.Cleanup(smallest=share).apply(twenty).sum()) == kept
    assert masks.per_cent(1e9, (30, 50)) == 100


def test_cleanup_works_in_its_order() -> None:
    """Holes before size, size before growth, growth before inversion, feather last; each step is the function of its name."""
    ring = box(40, 40, 5, 5, 25, 25) & ~box(40, 40, 10, 10, 20, 20) | box(40, 40, 35, 35, 37, 37)
    whole = masks.drop_small(masks.fill_holes(ring), 80)
    assert torch.equal(masks.Cleanup(fill=True, smallest=5.0).apply(ring), whole)
    assert torch.equal(masks.Cleanup(fill=True, smallest=5.0, grow=3.0).apply(ring), masks.grow(whole, 3.0))
    assert torch.equal(masks.Cleanup(fill=True, smallest=5.0, grow=-3.0).apply(ring), masks.shrink(whole, 3.0))
    done = masks.Cleanup(True, 5.0, 3.0, True, 2.0).apply(ring)
    assert torch.equal(done, masks.feather(~masks.grow(whole, 3.0), 2.0))
    assert torch.equal(masks.Cleanup().apply(ring), ring)


def test_cleanup_leaves_a_soft_mask_soft_unless_its_shape_changes() -> None:
    soft = RAMP / 5
    assert torch.equal(masks.Cleanup().apply(soft), soft)
    assert torch.allclose(masks.Cleanup(invert=True).apply(soft), 1 - soft)
    assert torch.equal(masks.Cleanup(grow=1.0).apply(soft), masks.grow(soft >= 0.5, 1.0))


@pytest.mark.parametrize(
    "odd",
    [{"smallest": -1.0}, {"smallest": 101.0}, {"grow": math.nan}, {"feather": math.inf}, {"grow": "3"}, {"feather": -1.0}],
)
def test_cleanup_refuses_what_it_cannot_do(odd: dict[str, float]) -> None:
    with pytest.raises(BadArgument, match=next(iter(odd))):
        masks.Cleanup(**odd)  # type: ignore[arg-type]
