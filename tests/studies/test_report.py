"""Reports: every number once in Markdown and once in HTML, the page alone is enough, equal reports are equal files."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from daam_core.studies import plots
from daam_core.studies.report import Example, Plot, Report, Table, Text, markdown, write_report


def report() -> Report:
    figure, (axes,) = plots.new_figure()
    plots.curves(axes, {"a": ([0.1, 0.2], [0.5, 0.6])}, "threshold", "IoU")
    frame = pd.DataFrame({"mask": ["a|b", "<i>"], "IoU": [0.12345, float("nan")], "count": pd.array([3, None], dtype="Int64")})
    return Report(
        "A & B",
        [
            Text("First.\n\nSecond <b>.", "Why"),
            Table("Numbers", frame, "All of them."),
            Plot("curve", figure, "A curve."),
            Example("dot", np.full((4, 6, 3), 200, np.uint8), "A dot."),
        ],
        files={"sheet.html": b"<p>"},
    )


def test_markdown_shows_numbers_and_gaps() -> None:
    text = markdown(report())
    assert "| a\\|b | 0.123 | 3 |" in text
    assert "| <i> | - | - |" in text
    assert "![A curve.](curve.png)" in text
    assert text.startswith("# A & B\n")


def test_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    picture = Image.open(io.BytesIO(base64.b64decode(sources[1].split(",")[1])))
    assert picture.size == (6, 4)
    assert "&lt;i&gt;" in page and "<i>" not in page
    assert "Second &lt;b&gt;." in page
    assert (tmp_path / "sheet.html").read_bytes() == b"<p>"
    assert Image.open(tmp_path / "curve.png").width > 600


def test_equal_reports_are_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_report(report(), tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
