"""CSV files of studies: nothing runs in a spreadsheet, and whatever a file holds is a sentence, not a traceback."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from daam_core.errors import BadArgument
from daam_core.studies.human_labels import labels_template, read_labels
from daam_core.studies.noun_pairs import read_pairs
from daam_core.studies.tables import csv_bytes, read_rows, rows_bytes

FORMULAS = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    frame = pd.DataFrame({"prompt": [text, "a house"], "share": [-0.5, 1.0], "count": pd.array([-1, None], dtype="Int64")})
    rows = list(csv.reader(io.StringIO(csv_bytes(frame).decode(), newline="")))
    assert rows[1:] == [["'" + text.replace("\r", "\n"), "-0.5", "-1"], ["a house", "1.0", ""]]
    assert next(csv.reader(io.StringIO(rows_bytes([[text]]).decode(), newline=""))) == ["'" + text.replace("\r", "\n")]


def test_a_formula_comes_back_as_it_was(tmp_path: Path) -> None:
    """A label of a prompt that begins with a sign is still found."""
    path = tmp_path / "labels.csv"
    path.write_bytes(labels_template({"=a+b": "=a+b", "'quoted": "x"}).replace(b"'=a+b,'=a+b,", b"'=a+b,'=a+b,yes"))
    assert read_labels(path, ["=a+b", "'quoted"]) == {"=a+b": True}


@pytest.mark.parametrize(
    "content", [b"unit,both\n" + b"x" * 131_073 + b",yes\n", b"x" * 131_073 + b",both\n", b'unit,both\n"' + b"x" * 200_000]
)
def test_a_field_longer_than_any_table_s_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    """In every kind of file that studies read, in the head or below it."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(BadArgument, match="131072"):
        list(read_rows(path, ("unit", "both"), "labels"))
    with pytest.raises(BadArgument):
        read_labels(path, ["x"])
    with pytest.raises(BadArgument):
        read_pairs(path)


def test_short_rows_semicolons_and_a_mark_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffunit;both;more\nu1; yes ;x\nu2\n".encode())
    assert [row for _, row in read_rows(path, ("unit", "both"), "labels")] == [
        {"unit": "u1", "both": "yes"},
        {"unit": "u2", "both": ""},
    ]
