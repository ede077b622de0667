"""What the last run of each page showed: for the report and the buttons under the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .report_html import report_html
from .runs import Run


@dataclass(frozen=True)
class Latest:
    """The last run of one page ("txt2img" or "img2img")."""

    html: str = ""
    runs: tuple[Run, ...] = ()


_LATEST: dict[str, Latest] = {}


def remember(page: str, shown: Any, notes: list[str]) -> None:
    """Called at the end of each run of the host, whether it was recorded or not."""
    looks = shown.looks if shown is not None else []
    runs = tuple(shown.runs) if shown is not None else ()
    html = [report_html(None, notes)]
    for number, look in enumerate(looks):
        title = f"picture {number + 1}, seed {runs[number].seed}" if len(looks) > 1 else ""
        html.append(report_html(look.report, (), title))
    _LATEST[page] = Latest("".join(html), runs)


def latest(page: str) -> Latest:
    return _LATEST.get(page, Latest())
