"""Intervals draw whole prompts, and are those of a bootstrap written out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from daam_core.studies.cross_validation import CHOOSING, REPORTING, chosen, half_of
from daam_core.studies.statistics import mean_interval


def test_interval_is_that_of_a_bootstrap_over_prompts_written_out() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    values = rng.random(30)[groups] + 0.05 * rng.standard_normal(len(groups))
    found = mean_interval(list(values), list(groups))
    means = []
    for _ in range(4000):
        drawn = rng.integers(0, 30, 30)
        means.append(np.concatenate([values[groups == g] for g in drawn]).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.015)
    assert found.high == pytest.approx(high, abs=0.015)
    assert found.count == len(values)


def test_masks_of_one_prompt_do_not_pretend_to_be_independent() -> None:
    """Ten copies of each value make no interval narrower."""
    values = np.random.default_rng(1).random(20)
    once = mean_interval(list(values), list(range(20)))
    ten = mean_interval(list(np.repeat(values, 10)), list(np.repeat(np.arange(20), 10)))
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_the_same_every_time() -> None:
    values, groups = [0.1, 0.5, 0.7, 0.2], ["a", "b", "c", "d"]
    assert mean_interval(values, groups) == mean_interval(values, groups)


def test_too_little_for_an_interval() -> None:
    assert mean_interval([], []).count == 0
    one = mean_interval([0.25, 0.75, float("nan")], ["a", "a", "b"])
    assert (one.mean, one.count) == (0.5, 2)
    assert math.isnan(one.low)
    assert str(one) == "0.500"


def test_thresholds_are_chosen_on_one_half_with_kinds_of_equal_weight() -> None:
    rows = [
        # Ten masks of one kind like 0.1, one mask of the other likes 0.2 more strongly.
        *[{"mask": "m", "tau": 0.1, "split": "x", "half": CHOOSING, "iou": 0.6}] * 10,
        *[{"mask": "m", "tau": 0.2, "split": "x", "half": CHOOSING, "iou": 0.5}] * 10,
        {"mask": "m", "tau": 0.1, "split": "y", "half": CHOOSING, "iou": 0.1},
        {"mask": "m", "tau": 0.2, "split": "y", "half": CHOOSING, "iou": 0.4},
        # What the reporting half says must not matter.
        *[{"mask": "m", "tau": 0.1, "split": "y", "half": REPORTING, "iou": 1.0}] * 50,
        {"mask": "n", "tau": None, "split": "x", "half": CHOOSING, "iou": 0.3},
    ]
    frame = pd.DataFrame(rows)
    found = {pick.mask: pick for pick in chosen(frame)}
    assert found["m"].tau == 0.2
    assert found["m"].mean == pytest.approx(0.45)
    assert found["n"].tau is None
    assert len(found["n"].rows(frame)) == 1
    assert len(found["m"].rows(frame)) == 11
    assert [half_of(n) for n in range(3)] == [CHOOSING, REPORTING, CHOOSING]
