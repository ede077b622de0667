"""Ratings: what is refused and with which sentence, who counts, and agreement against formulas written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from daam_core.errors import BadArgument
from daam_core.studies.rating_sheet import Item, Sheet
from daam_core.studies.ratings import agreement, attentive, passed, read_ratings, table_of

SHEET = Sheet(tuple(Item(f"i{n}", "", f"w{n}", "", "NOUN" if n < 3 else "ADJ", "p", "o") for n in range(6)))
CHECK = SHEET.checks[0]


def write(path: Path, lines: Sequence[str], head: str = "sheet,rater,item,rating") -> Path:
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def lines(rater: str, ratings: Sequence[int | str], check: int | None = None) -> list[str]:
    found = [f"{SHEET.id},{rater},i{n},{rating}" for n, rating in enumerate(ratings)]
    return found + ([] if check is None else [f"{SHEET.id},{rater},{CHECK.id},{check}"])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    ours = write(tmp_path / "a.csv", lines("anna", [1, "abstract", 5]))
    theirs = tmp_path / "b.csv"
    # A spreadsheet's own: semicolons, a byte order mark, Windows' line ends, quotes.
    theirs.write_bytes(("\ufeffsheet;rater;item;rating\r\n" + f'"{SHEET.id}";"ben";"i0";"2"\r\n').encode())
    answers = read_ratings([ours, theirs], SHEET)
    assert [(a.rater, a.item, a.rating, a.remark) for a in answers] == [
        ("anna", "i0", 1, ""), ("anna", "i1", None, "abstract"), ("anna", "i2", 5, ""), ("ben", "i0", 2, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lines("anna", [1, 6]), "line 3: the rating '6' is none of 1 to 5"),
        (lines("anna", [0]), "'0' is none of"),
        (lines("anna", ["4.5"]), "'4.5' is none of"),
        (lines("anna", [""]), "'' is none of"),
        ([f"{SHEET.id},anna,i99,3"], "line 2: there is no item 'i99'"),
        ([f"{SHEET.id},,i1,3"], "no rater is named"),
        (["0123,anna,i1,3"], "ratings of the sheet '0123'"),
        ([*lines("anna", [1]), *lines("anna", [2])], "rated the item 'i0' twice"),
        ([], "holds no ratings"),
        ([f"{SHEET.id},anna"], "there is no item ''"),
    ],
)
def test_a_wrong_line_is_one_sentence_with_its_place(tmp_path: Path, content: list[str], says: str) -> None:
    path = write(tmp_path / "r.csv", content)
    with pytest.raises(BadArgument, match=says) as error:
        read_ratings([path], SHEET)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"ratings file .* cannot be read"):
        read_ratings([tmp_path / "missing.csv"], SHEET)
    with pytest.raises(BadArgument, match=r"ratings file .* cannot be read"):
        read_ratings([tmp_path], SHEET)
    (tmp_path / "x.csv").write_bytes(b"sheet,rater,item,rating\n\xff\xfe")
    with pytest.raises(BadArgument, match="not UTF-8"):
        read_ratings([tmp_path / "x.csv"], SHEET)
    with pytest.raises(BadArgument, match="has no column 'rating'"):
        read_ratings([write(tmp_path / "y.csv", ["a,b,c"], "sheet,rater,item")], SHEET)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(BadArgument, match="has no column 'sheet'"):
        read_ratings([tmp_path / "empty.csv"], SHEET)


def test_a_rater_in_two_files_is_named(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.csv", lines("anna", [1])), write(tmp_path / "2.csv", lines("anna", [2]))
    with pytest.raises(BadArgument, match=r"Rater 'anna' is in both .*1\.csv and .*2\.csv"):
        read_ratings([one, two], SHEET)
    with pytest.raises(BadArgument, match="in both"):
        read_ratings([one, one], SHEET)


def test_who_fails_the_checks_is_left_out(tmp_path: Path) -> None:
    wrong = CHECK.asked % 5 + 1
    path = write(tmp_path / "r.csv", [*lines("anna", [5, 4], CHECK.asked), *lines("bot", [1, 1], wrong), *lines("new", [2])])
    answers = read_ratings([path], SHEET)
    assert attentive(answers, SHEET) == {"anna": (1, 1), "bot": (1, 0), "new": (0, 0)}
    table = table_of(answers, SHEET)
    assert list(table.rater) == ["anna", "anna", "new"]
    assert set(table.item) == {"i0", "i1"}
    assert [passed(*counts) for counts in ((3, 2), (3, 1), (0, 0), (1, 0))] == [True, False, True, False]


def frame(matrix: Sequence[Sequence[float]]) -> pd.DataFrame:
    """Rows are raters, columns are items, NaN is no rating."""
    rows = [
        {"rater": f"r{i}", "item": f"i{j}", "tag": "NOUN", "word": "w", "rating": value, "remark": ""}
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
    ]
    return pd.DataFrame(rows)


def alpha_by_hand(matrix: Sequence[Sequence[float]]) -> float:
    """Krippendorff's ordinal alpha from its definition: observed over expected disagreement of pairs of ratings."""
    columns = [[v for v in column if not math.isnan(v)] for column in zip(*matrix, strict=True)]
    columns = [c for c in columns if len(c) > 1]
    values = [v for c in columns for v in c]
    count = {v: values.count(v) for v in set(values)}

    def distance(a: float, b: float) -> float:
        low, high = min(a, b), max(a, b)
        between = sum(n for v, n in count.items() if low <= v <= high)
        return 0.0 if a == b else (between - (count[low] + count[high]) / 2) ** 2

    observed = sum(distance(a, b) / (len(c) - 1) for c in columns for a, b in itertools.permutations(c, 2)) / len(values)
    expected = sum(distance(a, b) for a, b in itertools.permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


def kappa_by_hand(matrix: Sequence[Sequence[float]]) -> float:
    """Fleiss (1971), equations written out."""
    columns = list(zip(*matrix, strict=True))
    n = len(matrix)
    categories = sorted({v for c in columns for v in c})
    table = np.array([[c.count(k) for k in categories] for c in columns])
    agreed = ((table * (table - 1)).sum(1) / (n * (n - 1))).mean()
    chance = ((table.sum(0) / table.sum()) ** 2).sum()
    return float((agreed - chance) / (1 - chance))


def test_agreement_equals_the_formulas() -> None:
    nan = math.nan
    chance = np.random.default_rng(0)
    full = chance.integers(1, 6, (4, 25)).astype(float).tolist()
    found = agreement(frame(full))
    assert found.alpha == pytest.approx(alpha_by_hand(full))
    assert found.kappa == pytest.approx(kappa_by_hand(full))
    assert (found.raters, found.shared, found.complete) == (4, 25, 25)
    holes = [[1, 2, 3, nan, 5, nan], [1, 2, 4, 4, nan, nan], [nan, 3, 3, 4, 5, 2]]
    found = agreement(frame(holes))
    assert found.alpha == pytest.approx(alpha_by_hand(holes))
    assert (found.shared, found.complete) == (5, 2)
    assert found.kappa == pytest.approx(kappa_by_hand([row[1:3] for row in holes]))


def test_perfect_agreement_is_one_and_nothing_to_agree_on_is_none() -> None:
    same = agreement(frame([[1, 3, 5], [1, 3, 5]]))
    assert same.alpha == pytest.approx(1) and same.kappa == pytest.approx(1)
    for nothing in ([[3, 3], [3, 3]], [[1, 2, 3]]):
        found = agreement(frame(nothing))
        assert (found.alpha, found.kappa) == (None, None)
    nan = math.nan
    apart = agreement(frame([[1, nan], [nan, 5]]))
    assert (apart.alpha, apart.kappa, apart.shared) == (None, None, 0)
    assert agreement(frame([[nan]])).raters == 0
