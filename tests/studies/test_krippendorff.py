"""Ordinal alpha against the published example, against a count by hand, and at its ends."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from daam_core.studies.krippendorff import ordinal_alpha

NAN = math.nan
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units, values 1 to 5.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def test_the_published_example() -> None:
    assert ordinal_alpha(PUBLISHED, range(1, 6)) == pytest.approx(0.815, abs=5e-4)


def by_pairs(ratings: NDArray[np.float64], scale: list[float]) -> float:
    """The definition, pair of ratings by pair of ratings."""
    items = [[v for v in column if not math.isnan(v)] for column in ratings.T]
    items = [item for item in items if len(item) > 1]
    pool = [v for item in items for v in item]
    number = {v: pool.count(v) for v in scale}

    def distance(a: float, b: float) -> float:
        low, high = sorted((a, b))
        return (sum(number[v] for v in scale if low <= v <= high) - (number[low] + number[high]) / 2) ** 2

    observed = sum(sum(distance(a, b) for a, b in itertools.permutations(item, 2)) / (len(item) - 1) for item in items)
    expected = sum(distance(a, b) for a, b in itertools.permutations(pool, 2)) / (len(pool) - 1)
    return 1 - observed / expected


def test_it_is_the_definition_on_random_ratings() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        ratings = generator.integers(1, 6, (4, 9)).astype(float)
        ratings[generator.random(ratings.shape) < 0.3] = NAN
        assert ordinal_alpha(ratings, range(1, 6)) == pytest.approx(by_pairs(ratings, [1, 2, 3, 4, 5]), abs=1e-12)


def test_its_ends() -> None:
    same = np.array([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]])
    assert ordinal_alpha(same, range(1, 6)) == 1
    assert ordinal_alpha(np.array([[1.0, 5.0], [5.0, 1.0]]), range(1, 6)) < 0
    assert math.isnan(ordinal_alpha(np.full((2, 4), 3.0), range(1, 6)))
    assert math.isnan(ordinal_alpha(np.array([[1.0, NAN], [NAN, 2.0]]), range(1, 6)))
    with pytest.raises(ValueError, match="none of"):
        ordinal_alpha(np.array([[1.0, 9.0], [1.0, 2.0]]), range(1, 6))
