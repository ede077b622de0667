"""Short ways from `HeatMaps` and a prompt report to pictures: what the command line and the hosts call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument
from .animation import step_frames
from .overlay import Picture
from .sheets import contact_sheet, overlay
from .tables import table

if TYPE_CHECKING:
    from ..maps.heatmaps import HeatMaps
    from ..maps.statistics import PromptReport


def word_overlay(maps: HeatMaps, word: str, **options: Any) -> Picture:
    """`overlay` of one word or phrase on the recorded picture, with label and colour bar (options as there)."""
    chosen: dict[str, Any] = {"label": word, "bar": True}
    return overlay(_picture(maps), maps.heat_map(word, size=maps.size), **chosen | options)


def word_sheet(maps: HeatMaps, words: Sequence[str] | None = None, **options: Any) -> Picture:
    """`contact_sheet` of the words (content words by default) under the prompt."""
    names = list(words) if words is not None else maps.content_words or maps.words
    heats = dict(zip(names, maps.heat_maps(names), strict=True))
    chosen: dict[str, Any] = {"title": maps.prompt.text}
    return contact_sheet(_picture(maps), heats, **chosen | options)


def word_steps(maps: HeatMaps, word: str, **options: Any) -> list[Picture]:
    """`step_frames` of one word; needs a recording with steps kept apart (else DetailMissing)."""
    heats = [maps.select(steps=[step]).heat_map(word) for step in range(maps.steps)]
    return step_frames(_picture(maps), heats, word, **options)


def report_table(report: PromptReport, title: str = "", **options: Any) -> Picture:
    """`table` of a prompt report: one row for each word, neglected and entangled words named below."""
    rows = [
        (r.word, r.share, r.peak, r.spread, f"{r.closest[0]}  {r.closest[1]:.2f}" if r.closest else "-") for r in report.words
    ]
    return table(["word", "share", "peak", "spread", "overlaps most with"], rows, report.notes(), title, **options)


def _picture(maps: HeatMaps) -> Picture:
    if maps.picture is None:
        raise BadArgument("This recording holds no picture; give one to `render.overlay(picture, heat)`.")
    return maps.picture
