"""`daam-lens report` and `daam-lens fit-report`: the prompt report of a record, and its thresholds on a user's own pictures."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument, WordNotFound, quoted
from ..files import bounded_text, relative_path, writable_folder, write_text

if TYPE_CHECKING:
    from ..maps.prompt_report import ReportThresholds

COLUMNS = ("record", "word", "present")
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
MOST_LINES = 100_000
LARGEST_ANNOTATIONS = 2**24
"""Bytes of the annotations."""
LARGEST_THRESHOLDS = 2**16
"""Bytes of a file of thresholds."""


def report(args: argparse.Namespace) -> None:
    """`daam-lens report`: what each word did, which objects may be missing."""
    from ..maps.prompt_report import prompt_report
    from .commands import load

    limits = read_thresholds(Path(args.thresholds)) if args.thresholds is not None else None
    print("\n".join(prompt_report(load(args), args.words, limits).lines()))


def fit_report(args: argparse.Namespace) -> None:
    """`daam-lens fit-report`: thresholds of the report from annotated records."""
    from ..maps.heatmaps import HeatMaps
    from ..maps.report_fit import fit, measure

    path = Path(args.annotations)
    told = read_annotations(path)
    writable_folder(Path(args.out).parent)
    measured = []
    for record, words in told.items():
        try:
            measured.append(measure(HeatMaps.load(path.parent / record), words))
        except (BadArgument, WordNotFound) as error:
            raise BadArgument(f"{path}, record {record}: {error}") from None
    found = fit(measured, args.most_false)
    limits = {name: round(value, 6) for name, value in vars(found.thresholds).items()}
    print(f"{len(told)} pictures: chosen on one half, counted on the other.")
    print("\n".join(found.lines()))
    print(relative_path(write_text(Path(args.out), json.dumps(limits, indent=2) + "\n")))


def read_annotations(path: Path) -> dict[str, dict[str, bool]]:
    """A CSV file with the columns record, word, present: of each record, whether its picture shows each word's object.

    Raises:
        BadArgument: not such a file; the sentence names the line.
    """
    try:
        reader = csv.DictReader(io.StringIO(bounded_text(path, LARGEST_ANNOTATIONS, "file of annotations", "utf-8-sig")))
        if set(COLUMNS) - set(reader.fieldnames or ()):
            raise BadArgument(f"{path} needs a first line with the columns {', '.join(COLUMNS)}.")
        told: dict[str, dict[str, bool]] = {}
        for number, line in enumerate(reader, start=2):
            if number > MOST_LINES:
                raise BadArgument(f"{path} has more than {MOST_LINES:,} lines.")
            record, word, present = ((line[name] or "").strip() for name in COLUMNS)
            if not record or not word or present.lower() not in _YES:
                raise BadArgument(f"{path}, line {number}: a record, a word, and yes or no are needed; got {_cut(line)}.")
            seen = _YES[present.lower()]
            if told.setdefault(record, {}).setdefault(word, seen) != seen:
                raise BadArgument(f"{path}, line {number}: it says yes and no of {quoted(word, 60)} in {record}.")
    except OSError as error:
        raise BadArgument(f"The annotations {path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadArgument(f"{path} is no CSV file in UTF-8.") from error
    return told


def read_thresholds(path: Path) -> ReportThresholds:
    """The file that `fit-report` wrote.

    Raises:
        BadArgument: not such a file.
    """
    from ..maps.prompt_report import ReportThresholds

    try:
        values = json.loads(bounded_text(path, LARGEST_THRESHOLDS, "file of thresholds"))
    except BadArgument:
        raise
    except OSError as error:
        raise BadArgument(f"The thresholds {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise BadArgument(f"{path} is no JSON file.") from error
    names = set(vars(ReportThresholds()))
    if not isinstance(values, dict) or set(values) != names or not all(_is_ratio(value) for value in values.values()):
        raise BadArgument(f"{path} must hold {', '.join(sorted(names))}, each a number from 0 to 1, as fit-report writes them.")
    return ReportThresholds(**{name: float(value) for name, value in values.items()})


def _is_ratio(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _cut(line: Mapping[str, Any]) -> str:
    return repr(", ".join(str(line[name]) for name in COLUMNS))[:80]
