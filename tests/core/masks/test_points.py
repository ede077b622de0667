"""Points lie where they must: inside the word's mask and hot, or on another word and outside it."""

from __future__ import annotations

import torch

from daam_core.masks.points import boxes, negative_points, positive_points


def blob(y: float, x: float, spread: float = 6.0, size: tuple[int, int] = (60, 90)) -> torch.Tensor:
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * spread**2))


def test_each_part_gets_a_point_before_one_gets_two() -> None:
    heat = blob(20, 20) + 0.6 * blob(40, 70)
    mask = heat > 0.3
    first = positive_points(heat, mask, 1)
    assert abs(first[0][0] - 20) <= 2 and abs(first[0][1] - 20) <= 2  # (x, y)
    two = positive_points(heat, mask, 2)
    assert abs(two[1][0] - 70) <= 2 and abs(two[1][1] - 40) <= 2
    many = positive_points(heat, mask, 6)
    assert all(bool(mask[y, x]) for x, y in many) and len(set(many)) == len(many) and 2 < len(many) <= 6


def test_points_keep_away_from_the_edge_of_the_mask() -> None:
    """The hottest place lies on the mask's edge: a segmenter would take the wrong side of it."""
    heat = blob(30, 45, 20)
    mask = torch.zeros(60, 90, dtype=torch.bool)
    mask[10:50, 45:85] = True
    (x, y) = positive_points(heat, mask, 1)[0]
    assert x >= 49 and 14 <= y <= 45


def test_negative_points_lie_on_other_words_and_outside() -> None:
    own, tree, sun = blob(20, 20), blob(40, 70), 0.2 * blob(10, 60)
    mask = own > 0.4
    points = negative_points(own, mask, [tree, sun], 2)
    assert [(abs(x - a) <= 1, abs(y - b) <= 1) for (x, y), (a, b) in zip(points, [(70, 40), (60, 10)], strict=True)] == [
        (True, True)
    ] * 2
    assert not any(bool(mask[y, x]) for x, y in negative_points(own, mask, [tree, sun, own], 9))
    assert negative_points(own, mask, [own], 3) == []  # the same map: no place is more its own


def test_boxes_are_those_of_the_parts() -> None:
    mask = torch.zeros(60, 90, dtype=torch.bool)
    mask[5:15, 10:40] = True
    mask[30:32, 50:53] = True
    assert [tuple(box) for box in boxes(mask)] == [(10, 5, 30, 10), (50, 30, 3, 2)]
    assert [tuple(box) for box in boxes(mask, smallest=1.0)] == [(10, 5, 30, 10)]
    assert boxes(torch.zeros(4, 4, dtype=torch.bool)) == []
    assert positive_points(torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool), 3) == []
