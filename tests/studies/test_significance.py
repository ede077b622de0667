"""Tests of significance: against formulas and enumerations written out, and where they are impossible."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special

from daam_core.studies.significance import clustered, holm, p_text, paired, welch


def student_p(t: float, degrees: float) -> float:
    """Two-sided tail of Student's t by the incomplete beta function."""
    return float(special.betainc(degrees / 2, 0.5, degrees / (degrees + t**2)))


def test_welch_is_the_formula() -> None:
    a, b = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 3.5, 5.0])
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 3
    t = (a.mean() - b.mean()) / (va + vb) ** 0.5
    degrees = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    assert welch(a, [*b, math.nan]) == pytest.approx(student_p(t, degrees))


def test_wilcoxon_counts_all_signs() -> None:
    """Five prompts: the exact p is the part of the 32 sign patterns that are as lopsided."""
    difference = np.array([0.5, -0.1, 0.2, 0.3, 0.4])
    ranks = np.array([5, 1, 2, 3, 4])
    low = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    as_far = sum(
        min(s, 15 - s) <= low
        for s in (sum(r for r, sign in zip(ranks, signs, strict=True) if sign) for signs in itertools.product((0, 1), repeat=5))
    )
    assert paired(difference, np.zeros(5), range(5)) == pytest.approx(as_far / 32)
    # Two pairs of a prompt are one observation: their mean.
    twice = np.repeat(difference, 2) + np.tile([0.01, -0.01], 5)
    assert paired(twice, np.zeros(10), np.repeat(range(5), 2)) == pytest.approx(as_far / 32)


def test_cluster_robust_errors_are_the_sandwich() -> None:
    chance = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 4)
    shift = chance.normal(size=12)[groups]
    side = np.tile([1, 1, 0, 0], 12)
    y = 0.4 * side + shift + 0.3 * chance.normal(size=48)
    x = np.stack([np.ones(48), side], 1)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    residual = y - x @ beta
    meat = sum(np.outer(x[groups == g].T @ residual[groups == g], x[groups == g].T @ residual[groups == g]) for g in range(12))
    factor = 12 / 11 * 47 / 46
    error = (factor * bread @ meat @ bread)[1, 1] ** 0.5
    expected = student_p(beta[1] / error, 11)
    one = side == 1
    assert clustered(y[one], y[~one], groups[one], groups[~one]) == pytest.approx(expected)


def test_dependence_is_not_taken_for_evidence() -> None:
    """100 pairs in 6 prompts each side, all noise between prompts: the naive test is sure, the clustered one is not."""
    values = [0.1, 0.2, 0.3, 0.5, 0.6, 0.7], [0.2, 0.3, 0.4, 0.6, 0.7, 0.8]
    first, second = (np.repeat(v, 100) for v in values)
    groups = np.repeat(np.arange(6), 100)
    assert welch(first, second) < 1e-6
    assert clustered(first, second, groups, groups + 10) > 0.2


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.01, math.nan, 0.04, 0.03])
    assert math.isnan(adjusted[1]) and adjusted[0] == pytest.approx(0.03)
    assert holm([]) == [] and math.isnan(holm([math.nan])[0])


def test_what_cannot_be_tested_is_nan() -> None:
    assert math.isnan(welch([1.0], [1.0, 2.0])) and math.isnan(welch([1, 1], [1, 1])) and math.isnan(welch([], []))
    assert math.isnan(paired([1.0, 1.0], [1.0, 1.0], [0, 1])) and math.isnan(paired([1.0], [0.0], [0]))
    assert math.isnan(paired([], [], []))
    assert math.isnan(clustered([1, 2, 3], [1, 2, 3], [0, 0, 0], [1, 1, 1]))
    assert [p_text(p) for p in (math.nan, 0.0002, 0.0456)] == ["-", "<0.001", "0.046"]
