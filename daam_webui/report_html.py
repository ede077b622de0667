"""The prompt report and the sentences as HTML for the page. Every word of a user is escaped: text, never HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from daam_core.maps.prompt_report import PromptReport
from daam_core.maps.queries import PRESENCE_NOTE


def report_html(report: PromptReport | None, notes: Sequence[str] = (), title: str = "", concepts: Sequence[str] = ()) -> str:
    """A table of the words with a bar for each share, objects that may be missing, pairs that share their places.

    Args:
        notes: sentences above it.
        title: which picture it is about.
        concepts: the captions of what is not in the prompt.
    """
    parts = [f"<p class='daam-lens-note'>{escape(note)}</p>" for note in notes]
    if report is not None and report.words:
        rows = "".join(_row(report, i) for i in range(len(report.words)))
        head = "<tr><th>word</th><th colspan='2'>share of the attention</th><th>covers</th><th>overlaps most with</th></tr>"
        caption = f"<caption>{escape(title)}</caption>" if title else ""
        parts.append(f"<table class='daam-lens-report'>{caption}{head}{rows}</table>")
        parts += [f"<p>{escape(note)}</p>" for note in report.notes()]
    if concepts:
        listed = "".join(f"<li>{escape(concept)}</li>" for concept in concepts)
        about = f" ({escape(title)})" if title else ""
        parts.append(f"<p>Looked for{about}:</p><ul class='daam-lens-concepts'>{listed}</ul><p>{escape(PRESENCE_NOTE)}</p>")
    return f"<div class='daam-lens'>{''.join(parts)}</div>" if parts else ""


def _row(report: PromptReport, number: int) -> str:
    word = report.words[number]
    top = max(w.share for w in report.words) or 1.0
    bar = f"<div class='daam-lens-share' style='width:{100 * word.share / top:.0f}%'></div>"
    near = f"{escape(word.closest[0])} ({word.closest[1]:.2f})" if word.closest else "–"
    idle = " class='daam-lens-idle'" if word.word in report.neglected else ""
    # A word that lost its places covers nothing, whatever a threshold makes of its map.
    covers = "–" if idle else f"{word.spread:.0%}"
    return (
        f"<tr{idle}><td>{escape(word.word)}</td><td class='daam-lens-bars'>{bar}</td><td>{word.share:.0%}</td>"
        f"<td>{covers}</td><td>{near}</td></tr>"
    )
