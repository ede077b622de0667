"""CSV files: written so that a spreadsheet runs nothing in them, read so that what is wrong is one sentence."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArgument, quoted
from ..files import bounded_text

if TYPE_CHECKING:
    import pandas as pd

LARGEST_TABLE = 64_000_000
"""Bytes of a table that is read."""
_FORMULA = ("=", "+", "-", "@", "\t", "\n")
"""How a cell begins that Excel, LibreOffice and others compute, or even run as a command."""


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table as CSV, UTF-8, every text that a spreadsheet would take for a formula behind an apostrophe."""
    text = frame.copy()
    for name in text.columns:
        if text[name].dtype.kind not in "iufb":
            text[name] = text[name].map(lambda cell: as_text(cell) if isinstance(cell, str) else cell)
    return text.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace")


def rows_bytes(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows of texts as CSV, UTF-8. See `csv_bytes`."""
    into = io.StringIO(newline="")
    csv.writer(into, lineterminator="\n").writerows([as_text(cell) for cell in row] for row in rows)
    return into.getvalue().encode("utf-8", "replace")


def as_text(cell: str) -> str:
    """A cell that no spreadsheet computes."""
    # A lone carriage return ends a row for some readers, quoted or not.
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def read_rows(path: Path, columns: Sequence[str], what: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of each line of a CSV file; the place is "FILE, line N", the row has `columns`, without spaces around.

    The apostrophe that `csv_bytes` puts before a formula is taken away again. Semicolons instead of commas are read, too:
    some spreadsheets save so.

    Args:
        path: a text file, UTF-8.
        columns: what it must have; others are passed over.
        what: what the file is, for the sentences: "labels", "ratings".

    Raises:
        BadArgument: it cannot be read, is too large or no UTF-8, lacks a column, or has a field that no table has.
    """
    try:
        text = bounded_text(path, LARGEST_TABLE, f"{what} file", "utf-8-sig")
    except OSError as error:
        raise BadArgument(f"The {what} file {path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise BadArgument(f"The {what} file {path} is not UTF-8 text.") from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    try:
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise BadArgument(f"{path} has no column {quoted(missing[0])}: a {what} file has {', '.join(columns)}.")
        for row in reader:
            yield f"{path}, line {reader.line_num}", {name: _plain((row[name] or "").strip()) for name in columns}
    except csv.Error as error:
        raise BadArgument(f"{path}, after line {reader.line_num}: {error}. That is no {what} file.") from None


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
