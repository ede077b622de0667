"""Answers of raters: read, checked against their sheet, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadArgument, quoted
from .krippendorff import ordinal_alpha
from .rating_sheet import Sheet
from .tables import read_rows

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("sheet", "rater", "item", "rating")
REMARKS = ("abstract", "poor")
"""Answers that are no rating: the word is too abstract, the picture too poor (the paper leaves both out of its means)."""
SCALE = (1, 2, 3, 4, 5)
PASSING = 2 / 3
"""Part of the attention checks that a rater must answer as asked."""


@dataclass(frozen=True)
class Answer:
    """One line of a ratings file: `rating` is 1..5, or None where `remark` is "abstract" or "poor"."""

    rater: str
    item: str
    rating: int | None
    remark: str


def read_ratings(paths: Sequence[str | Path], sheet: Sheet) -> list[Answer]:
    """All answers of all files, checks included, in order.

    Raises:
        BadArgument: a file that is no ratings file of this sheet: not readable, of another sheet, an unknown item, a
            rating that is none of the scale, a rater twice, a rater who rated one item twice. The text names the line.
    """
    known = {item.id for item in sheet.items} | {check.id for check in sheet.checks}
    answers: list[Answer] = []
    owner: dict[str, Path] = {}
    for path in map(Path, paths):
        found = [_answer(row, where, sheet.id, known) for where, row in read_rows(path, COLUMNS, "ratings")]
        if not found:
            raise BadArgument(f"{path} holds no ratings: it has a head line and nothing below it.")
        for rater in dict.fromkeys(answer.rater for answer in found):
            if rater in owner:
                raise BadArgument(f"Rater {quoted(rater)} is in both {owner[rater]} and {path}: give each rater's file once.")
            owner[rater] = path
        seen: set[tuple[str, str]] = set()
        for answer in found:
            if (answer.rater, answer.item) in seen:
                raise BadArgument(f"{path}: rater {quoted(answer.rater)} rated the item {quoted(answer.item)} twice.")
            seen.add((answer.rater, answer.item))
        answers += found
    return answers


def check_files(paths: Sequence[str | Path]) -> None:
    """Raises BadArgument for a file that is no ratings file at all; whose sheet it is for is not looked at."""
    for path in map(Path, paths):
        for _ in read_rows(path, COLUMNS, "ratings"):
            pass


def attentive(answers: Sequence[Answer], sheet: Sheet) -> dict[str, tuple[int, int]]:
    """For each rater how many attention checks were answered, and how many of those as asked."""
    asked = {check.id: check.asked for check in sheet.checks}
    result = {answer.rater: (0, 0) for answer in answers}
    for answer in answers:
        if answer.item in asked:
            total, right = result[answer.rater]
            result[answer.rater] = (total + 1, right + (answer.rating == asked[answer.item]))
    return result


def passed(answered: int, right: int) -> bool:
    """Whether a rater's answers count: two thirds of the checks are right, or none was reached."""
    return right >= PASSING * answered


def table_of(answers: Sequence[Answer], sheet: Sheet) -> pd.DataFrame:
    """Answers of raters who passed, without the checks: columns rater, item, tag, word, rating (NaN: remark), remark."""
    import pandas as pd

    items = {item.id: item for item in sheet.items}
    good = {rater for rater, counts in attentive(answers, sheet).items() if passed(*counts)}
    rows = [
        {
            "rater": a.rater,
            "item": a.item,
            "tag": items[a.item].tag,
            "word": items[a.item].word,
            "rating": math.nan if a.rating is None else float(a.rating),
            "remark": a.remark,
        }
        for a in answers
        if a.item in items and a.rater in good
    ]
    return pd.DataFrame(rows, columns=["rater", "item", "tag", "word", "rating", "remark"])


@dataclass(frozen=True)
class Agreement:
    """How far raters agree; None where the numbers do not allow it.

    Attributes:
        alpha: Krippendorff's alpha, ordinal, over all items rated by two or more (1 agreement, 0 chance).
        kappa: Fleiss' kappa, nominal, over the items that every rater rated.
        raters: how many rated at all.
        shared: items that two or more rated.
        complete: items that every rater rated.
    """

    alpha: float | None
    kappa: float | None
    raters: int
    shared: int
    complete: int


def agreement(table: pd.DataFrame) -> Agreement:
    """Agreement over the rows of `table_of`: `krippendorff.ordinal_alpha`, and Fleiss' kappa by statsmodels."""
    from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

    rated = table.dropna(subset=["rating"])
    if rated.empty:
        return Agreement(None, None, 0, 0, 0)
    matrix = rated.pivot(index="rater", columns="item", values="rating").to_numpy()
    counts = (~np.isnan(matrix)).sum(0)
    shared, complete = int((counts >= 2).sum()), matrix[:, counts == len(matrix)]
    alpha = kappa = None
    # One value everywhere leaves nothing that chance could get wrong: both coefficients are 0/0.
    if shared and len(np.unique(matrix[:, counts >= 2][~np.isnan(matrix[:, counts >= 2])])) > 1:
        alpha = ordinal_alpha(matrix, SCALE)
    if len(matrix) > 1 and len(np.unique(complete)) > 1:
        counted, _ = aggregate_raters(complete.T.astype(int), n_cat=None)
        kappa = float(fleiss_kappa(counted))
    return Agreement(alpha, kappa, len(matrix), shared, complete.shape[1])


def _answer(row: dict[str, str], where: str, sheet: str, known: set[str]) -> Answer:
    if row["sheet"] != sheet:
        told = f"{where}: these are ratings of the sheet {quoted(row['sheet'])}, this study's sheet is {quoted(sheet)}."
        raise BadArgument(told)
    if not row["rater"]:
        raise BadArgument(f"{where}: no rater is named.")
    if row["item"] not in known:
        raise BadArgument(f"{where}: there is no item {quoted(row['item'])} in the sheet {quoted(sheet)}.")
    value: Any = row["rating"]
    if value in REMARKS:
        return Answer(row["rater"], row["item"], None, value)
    if value not in map(str, SCALE):
        raise BadArgument(f"{where}: the rating {quoted(value)} is none of 1 to 5, {' or '.join(REMARKS)}.")
    return Answer(row["rater"], row["item"], int(value), "")
