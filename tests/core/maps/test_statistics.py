"""What the maps say in words, on maps drawn by hand."""

from __future__ import annotations

import pytest
import torch

from daam_core.errors import BadArgument
from daam_core.maps import statistics
from daam_core.maps.heatmaps import HeatMaps
from daam_core.maps.prompt_report import prompt_report
from daam_core.maps.statistics import above_negative, box_region, difference, mean_probability, rank_region, share

from .test_heatmaps import changed, made

GRID = (8, 12)


def drawn(**words: torch.Tensor) -> HeatMaps:
    """Maps of "a red house and a green tree" at one resolution; words not given are even."""
    maps = made()
    rows = torch.full((maps.prompt.num_channels, *GRID), 0.5)
    for word, heat in words.items():
        rows[maps.prompt.find(word).channels[0]] = heat
    return changed(maps, sums={GRID: rows}, time_weighted={GRID: rows}, num_terms={GRID: 16})


def left() -> torch.Tensor:
    heat = torch.zeros(GRID)
    heat[:, :6] = 4.0
    return heat


def right() -> torch.Tensor:
    return left().flip(1)


def test_shares_of_a_place_sum_to_one() -> None:
    shares = share(drawn(house=left(), tree=right()), ["house", "tree"])
    assert torch.allclose(shares.sum(0), torch.ones(GRID))
    assert shares[0, 0, 0] == 1
    assert shares[1, 0, -1] == 1
    assert share(drawn(house=torch.zeros(GRID)), ["house"]).sum() == 0


def test_the_words_of_a_region_are_ranked_by_what_is_special_there() -> None:
    """ "and" has the most attention everywhere; "house" still drives the left half."""
    maps = drawn(house=left(), tree=right(), **{"and": torch.full(GRID, 50.0)})
    ranked = rank_region(maps, box_region(maps, 0, 0, 40, 64), ["and", "house", "tree"])
    assert [r.word for r in ranked] == ["house", "and", "tree"]
    assert ranked[0].lift == pytest.approx(2.0, rel=0.05)
    assert sum(r.score for r in ranked) == pytest.approx(1.0)


def test_a_region_of_very_many_pixels_is_made_smaller_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 8192 x 8192 pixels took half a minute, and 256 MB a word."""
    maps = drawn(house=left(), tree=right(), **{"and": torch.full(GRID, 50.0)})
    region = torch.zeros(640, 960)
    region[100:333, 77:400] = torch.rand(233, 323)
    whole = rank_region(maps, region, ["and", "house", "tree"])
    monkeypatch.setattr(statistics, "MOST_DRAWN", 2**16)
    monkeypatch.setattr(statistics, "MOST_AT_ONCE", 2**15)
    for one, other in zip(rank_region(maps, region, ["and", "house", "tree"]), whole, strict=True):
        assert one.word == other.word and one.score == pytest.approx(other.score, abs=2e-3)


def test_regions_are_cut_to_the_picture_and_empty_ones_said() -> None:
    maps = drawn()
    assert box_region(maps, 90, 60, 100, 100).sum() == 6 * 4
    assert box_region(maps, -5, -5, 10, 10).sum() == 25
    with pytest.raises(BadArgument, match="outside the picture"):
        box_region(maps, 200, 0, 5, 5)
    with pytest.raises(BadArgument, match="empty"):
        rank_region(maps, torch.zeros(64, 96))


def test_statistics_are_the_functions_on_the_prompt_s_side() -> None:
    maps = drawn(house=left(), tree=right())
    found = maps.statistics()
    assert torch.equal(found.share(["house", "tree"]), share(maps, ["house", "tree"]))
    assert torch.equal(found.mean_probability(["house"], (4, 6)), mean_probability(maps, ["house"], (4, 6)))
    assert torch.equal(found.difference(drawn(), "house"), difference(maps, drawn(), "house"))
    assert found.report() == prompt_report(maps)
    region = box_region(maps, 0, 0, 40, 64)
    assert found.rank_box(0, 0, 40, 64) == found.rank(region) == rank_region(maps, region)
    with pytest.raises(BadArgument, match="negative=True"):
        found.above_negative("house")


def test_two_runs_are_compared_per_term() -> None:
    """A run of twice the steps has twice the sums and no difference."""
    short = drawn(house=left())
    longer = changed(short, sums={GRID: short.sums[GRID] * 2}, num_terms={GRID: 32})
    assert difference(longer, short, "house").abs().max() < 1e-6
    assert difference(drawn(house=right()), short, "house")[0, -1] == pytest.approx(4 / 16)
    assert difference(drawn(house=right()), short, "house")[0, 0] == pytest.approx(-4 / 16)


def test_the_negative_prompt_is_subtracted_where_recorded() -> None:
    maps = drawn(house=left())
    with pytest.raises(BadArgument, match="negative=True"):
        above_negative(maps, "house")
    above = above_negative(maps.with_negative(drawn()), "house")
    assert above[0, 0] == pytest.approx(4 / 16 - 0.5 / 16)
    assert above[0, -1] == pytest.approx(-0.5 / 16)
    assert mean_probability(maps, ["house"]).max() == pytest.approx(4 / 16)
