"""What the report says of maps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from daam_core.maps.prompt_report import (
    MOST_PAIRS,
    PromptReport,
    ReportThresholds,
    WordReport,
    led_places,
    prompt_report,
    won_places,
)
from daam_core.maps.statistics import mean_probability
from daam_core.prompt.prompt import Prompt, Token, Word

from .test_heatmaps import changed, made
from .test_statistics import GRID, drawn, left, right


def test_a_noun_that_lost_its_places_may_be_missing() -> None:
    """The tree's map is a tenth of the house's, at the same places."""
    report = prompt_report(drawn(house=left(), tree=0.1 * left(), red=left()))
    assert report.neglected == ("tree",)
    by_word = {r.word: r for r in report.words}
    assert by_word["house"].won == pytest.approx(0.5)
    assert by_word["tree"].won == 0.0
    assert by_word["tree"].strongest == "house"
    assert by_word["red"].won is None
    assert "“tree” lost nearly every place to “house”; it may be missing from the picture." in report.lines()


def test_colours_are_never_accused() -> None:
    """Neither "green", which lies evenly, nor "red", which lies where "house" does."""
    report = prompt_report(drawn(red=left(), house=left(), tree=right()))
    assert report.neglected == () and report.entangled == () and report.notes() == []
    closest = {r.word: r for r in report.words}["house"].closest
    assert closest is not None and closest == ("red", pytest.approx(1.0))


def test_the_figures_of_a_word() -> None:
    report = prompt_report(drawn(red=left(), house=left(), tree=right()))
    house = next(r for r in report.words if r.word == "house")
    assert house.spread == pytest.approx(0.5)
    assert house.contrast == pytest.approx(house.peak / (2 / 16) - 1)
    assert sum(r.share for r in report.words) == pytest.approx(1.0)


def test_the_peak_is_the_number_of_the_colour_bar() -> None:
    """Both are of the map at the picture's size; at the recording's grid another one stood in the report."""
    maps = drawn(red=left(), house=left(), tree=right())
    row = next(r for r in prompt_report(maps).words if r.word == "house")
    enlarged = torch.nn.functional.interpolate(left()[None, None] / 16, maps.size, mode="bicubic")
    assert row.peak == pytest.approx(float(enlarged.max()))
    assert row.peak == pytest.approx(float(mean_probability(maps, ["house"], maps.size).max()))


def test_the_spread_is_the_part_of_eq_7_s_mask() -> None:
    """A word that lies nearly evenly is hot in most of the picture: its map is not stretched from its lowest value first."""
    even = 0.7 + 0.3 * left() / left().max()
    maps = drawn(house=even, tree=right())
    rows = {r.word: r for r in prompt_report(maps).words}
    assert rows["house"].spread == float((even >= 0.4 * even.max()).float().mean()) == 1.0
    assert rows["house"].closest is not None and rows["house"].closest[1] == 1.0
    assert rows["tree"].spread == 0.5


def test_the_text_explains_its_columns_and_speaks_in_per_cent() -> None:
    """Someone who opens report.txt has nothing else to read beside it; every number is a part, the last one from 0 to 1."""
    lines = prompt_report(drawn(red=left(), house=left(), tree=right())).lines()
    assert next(line for line in lines if line.startswith("house")).split()[2:] == ["27.8%", "50.0%", "red", "(1.00)"]
    explained = " ".join(lines[4:])
    assert all(f"{column}: " in explained for column in ("share", "peak", "spread")) and "IoU" in explained
    assert prompt_report(made("")).lines() == lines[:1], "where there are no words, nothing is explained"


def test_nouns_at_the_same_places_share_them() -> None:
    both = drawn(house=left(), tree=left())
    report = prompt_report(both, thresholds=ReportThresholds(won=0.0))
    assert report.neglected == ()
    assert report.entangled == (("house", "tree", pytest.approx(1.0)),)
    assert report.notes() == [
        "“house” and “tree” share their places (IoU 1.00): one thing may stand for both, or one of them may be missing."
    ]
    # Both lost every place to each other: that is told once.
    assert all("may be missing from the picture" in note for note in prompt_report(both).notes())


def test_one_object_has_nothing_to_lose_to() -> None:
    report = prompt_report(drawn(house=torch.full(GRID, 1.0)), ["red", "house"])
    assert report.neglected == () and report.entangled == ()
    assert all(word.won is None and word.strongest is None for word in report.words)


def test_a_phrase_that_holds_a_noun_stands_for_its_object() -> None:
    report = prompt_report(drawn(house=left(), red=left(), tree=0.1 * left()), ["red house", "tree"])
    assert report.neglected == ("tree",)


@pytest.mark.parametrize("names", [["house", "house", "tree"], ["House", "house", "tree"], ["tree", "red house", "house"]])
def test_two_names_of_one_object_do_not_lose_to_each_other(names: list[str]) -> None:
    """Each object has its half of the picture; asked for under two names it is still one object, and nothing is missing."""
    report = prompt_report(drawn(house=left(), red=left(), tree=right()), names)
    assert report.notes() == []
    assert {row.strongest for row in report.words if row.word == "tree"} == {"house" if "House" not in names else "House"}
    assert len({row.word.lower() for row in report.words}) == len(report.words)


def test_won_and_led_places_by_hand() -> None:
    late = torch.tensor([[[4.0, 3.0, 0.0]], [[0.0, 2.5, 2.0]], [[0.0, 0.0, 0.5]]])
    # margin 0.25 x 4 = 1: the first leads by 4 and 0.5 and not at all, the second by 1.5 at the last place.
    assert won_places(late, 0.25) == pytest.approx([1 / 3, 1 / 3, 0.0])
    led = led_places(late, 0.25)
    assert led[0, 1] == led[1, 0] == pytest.approx(1 / 3)  # the first at one place, the second at the last
    assert led[0, 2] == 0.0  # the first leads at two, the third by no more than 0.5
    assert led_places(late, 0.1)[0, 2] == pytest.approx(1 / 3)
    assert np.array_equal(led.diagonal(), np.zeros(3))
    assert not led_places(torch.zeros(2, 1, 3), 0.25).any()


def test_what_a_word_attends_everywhere_says_nothing_of_where_it_is() -> None:
    """The house attends to the whole picture, most to its own half; the tree to its own half alone, less than the house
    does there. Each has its half, and nothing is missing."""
    report = prompt_report(drawn(house=1.0 + 0.5 * left(), tree=0.6 * right()))
    won = {row.word: row.won for row in report.words}
    assert won["house"] == won["tree"] == pytest.approx(0.5)
    assert report.notes() == []
    even = prompt_report(drawn(house=torch.full(GRID, 1.0), tree=0.6 * right()))
    assert even.neglected == ("house",)


def test_a_missing_noun_without_a_known_winner() -> None:
    row = WordReport("fish", 0.5, 0.1, 2.0, 0.3, None)
    assert PromptReport((row,), ("fish",), ()).notes() == [
        "“fish” lost nearly every place; it may be missing from the picture."
    ]


def test_an_empty_prompt_has_an_empty_report() -> None:
    report = prompt_report(made(""))
    assert report.words == () and report.neglected == () and report.entangled == ()


def test_a_prompt_of_a_thousand_equal_words_has_a_short_report() -> None:
    """Pairs grow with the square of the words; what is said of them does not."""
    n = 1000
    tokens = tuple(Token(i, f"w{i}", i) for i in range(1, n + 1))
    words = tuple(Word(t.text, t.text, (t.channel,)) for t in tokens)
    prompt = Prompt("", tokens, words, (0,), (n + 1,), (), n + 2)
    rows = left().expand(n + 3, -1, -1)
    maps = changed(made(), sums={GRID: rows}, time_weighted={GRID: rows}, num_terms={GRID: 16}, prompt=prompt)
    report = prompt_report(maps)
    assert len(report.words) == n and len(report.entangled) <= MOST_PAIRS
    assert report.words[5].closest == ("w1", 1.0)
