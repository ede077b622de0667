"""Thresholds chosen on one half of the pictures, counted on the other, against counts by hand."""

from __future__ import annotations

import pytest

from daam_core.errors import BadArgument
from daam_core.maps.report_fit import Measured, cut_below, fit, measure, rates

from .test_statistics import drawn, left, right


def test_a_picture_is_measured_by_its_nouns() -> None:
    found = measure(drawn(house=left(), tree=right()), {"house": True, "tree": False})
    assert found.won == ((pytest.approx(0.5), True), (pytest.approx(0.5), False))
    assert found.led == ((pytest.approx(0.5), False),)
    with pytest.raises(BadArgument, match="at least two words, not 1"):
        measure(drawn(), {"house": True})


def test_a_cut_names_no_more_than_was_asked_for() -> None:
    values = [(k / 100, True) for k in range(100)] + [(0.0, False)]
    for most in (0.0, 0.05, 0.5):
        cut = cut_below(values, most)
        assert sum(v < cut for v, there in values if there) == round(most * 100)
    assert cut_below([(0.2, True)], 1.0) == 0.2
    with pytest.raises(BadArgument, match="annotate more"):
        cut_below([(0.2, False)], 0.05)


def test_rates_by_hand() -> None:
    found = rates([(0.0, False), (0.3, False), (0.1, True), (0.5, True), (0.6, True)], 0.2)
    assert (found.found, found.false) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    assert (found.missing, found.there) == (2, 3)
    assert rates([(0.5, True)], 0.2).found is None


def test_the_half_that_is_counted_chose_nothing() -> None:
    tune = Measured(((0.30, True), (0.01, False)), ((0.4, True),))
    other = Measured(((0.10, True), (0.02, False)), ((0.5, False),))
    found = fit([tune, other])
    assert found.thresholds.won == 0.30 and found.thresholds.led == 0.4
    assert (found.words.found, found.words.false) == (1.0, 1.0)
    assert (found.pairs.found, found.pairs.false) == (0.0, None)
    assert found.lines() == [
        "objects: below 0.3000; names 100.0% of 1 that are missing and 100.0% of 1 that are there",
        "pairs: below 0.4000; names 0.0% of 1 that are missing and none to count that are there",
    ]
    with pytest.raises(BadArgument, match="there is 1"):
        fit([tune])
