"""A report of tables, plots, pictures and paragraphs, as Markdown, as one HTML file, and as PNG files."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import png_bytes
from .files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Table:
    """A table: `frame` is shown column by column, without its index; floats with `digits` decimals, NaN as "-"."""

    title: str
    frame: pd.DataFrame
    caption: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Plot:
    """A matplotlib figure; `name` is the file name without `.png`."""

    name: str
    figure: Figure
    caption: str = ""


@dataclass(frozen=True)
class Example:
    """A picture, uint8 `[H, W, 3]` or `[H, W]`; `name` is the file name without `.png`."""

    name: str
    picture: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text, under a heading where there is one."""

    text: str
    title: str = ""


Part = Table | Plot | Example | Text


@dataclass(frozen=True)
class Report:
    """What a study concludes.

    Attributes:
        title: the heading.
        parts: in the order of reading.
        files: further files of the study by name (a rating sheet, an annotated list).
        facts: numbers for run.json, plain JSON.
    """

    title: str
    parts: Sequence[Part]
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.md, report.html and the pictures; each file appears whole or not at all.

    Raises:
        CannotWrite: a file cannot be written (a full disk, a folder without permission).
    """
    pictures = {f"{part.name}.png": _png(part) for part in report.parts if isinstance(part, Plot | Example)}
    files = {
        **pictures,
        **report.files,
        "report.md": markdown(report).encode(),
        "report.html": page(report, pictures).encode(),
    }
    return [write_whole(folder / name, content) for name, content in files.items()]


def markdown(report: Report) -> str:
    """The report as Markdown; pictures are links to the files beside it."""
    lines = [f"# {report.title}", ""]
    for part in report.parts:
        if isinstance(part, Text):
            lines += [f"### {part.title}", ""] if part.title else []
            lines += [part.text, ""]
        elif isinstance(part, Table):
            head, rows = cells(part)
            lines += [f"### {part.title}", "", *([part.caption, ""] if part.caption else [])]
            lines += [_pipes(head), _pipes(["---"] * len(head)), *map(_pipes, rows), ""]
        else:
            lines += [f"![{_one_line(part.caption or part.name)}]({part.name}.png)", ""]
            lines += [part.caption, ""] if part.caption else []
    return "\n".join(lines).rstrip() + "\n"


def page(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The report as one HTML file with everything inside, which opens from disk and asks nobody for anything."""
    body = [f"<h1>{html.escape(report.title)}</h1>"]
    for part in report.parts:
        if isinstance(part, Text):
            body += [f"<h2>{html.escape(part.title)}</h2>"] if part.title else []
            body += [f"<p>{html.escape(text)}</p>" for text in part.text.split("\n\n")]
        elif isinstance(part, Table):
            body.append(_html_table(part))
        else:
            source = base64.b64encode(pictures[f"{part.name}.png"]).decode()
            kind = "plot" if isinstance(part, Plot) else "example"
            caption = html.escape(part.caption)
            body.append(
                f'<figure class="{kind}"><img alt="{caption or html.escape(part.name)}" src="data:image/png;base64,{source}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    return _PAGE.format(title=html.escape(report.title), body="\n".join(body))


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The table's head and rows as text."""
    head = [str(name) for name in table.frame.columns]
    rows = [[_cell(value, table.digits) for value in row] for row in table.frame.itertuples(index=False, name=None)]
    return head, rows


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)) or repr(value) in ("<NA>", "NaT"):
        return "-"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}f}"
    return str(value)


def _html_table(table: Table) -> str:
    head, rows = cells(table)
    caption = f"<strong>{html.escape(table.title)}</strong> {html.escape(table.caption)}"
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(_html_cell(cell) for cell in row) + "</tr>" for row in rows]
    return (
        f'<div class="table"><table><caption>{caption}</caption><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _html_cell(cell: str) -> str:
    number = cell == "-" or cell.lstrip("<-")[:1].isdigit()
    return f"<td{' class=number' if number else ''}>{html.escape(cell)}</td>"


def _pipes(row: Sequence[str]) -> str:
    return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in row) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _png(part: Plot | Example) -> bytes:
    if isinstance(part, Example):
        return png_bytes(part.picture)
    into = io.BytesIO()
    # Without the name of the program and its version two equal plots are equal files.
    part.figure.savefig(into, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    return into.getvalue()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.7rem; }} h2 {{ font-size: 1.3rem; margin-top: 2.2rem; }}
p, caption {{ max-width: 62rem; }}
.table {{ overflow-x: auto; margin: 1.5rem 0; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding: .4rem 0; }}
th, td {{ padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #8886; }}
th {{ border-bottom: 2px solid #888; }} td.number {{ text-align: right; white-space: nowrap; }}
figure {{ margin: 1.5rem 0; }} figure img {{ max-width: 100%; height: auto; background: #fff; }}
figure.example img {{ image-rendering: pixelated; min-width: min(100%, 30rem); }}
figcaption {{ font-size: .9rem; opacity: .8; }}
@media print {{ body {{ margin: 0; max-width: none; }} figure, .table {{ break-inside: avoid; }} }}
</style></head><body>
{body}
</body></html>
"""
