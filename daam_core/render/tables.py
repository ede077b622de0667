"""The table of a prompt report as a picture: words, bars, and what is to be said about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..errors import BadArgument, quoted
from .arguments import checked_pixels, checked_row, checked_texts
from .colormaps import ColourMap, checked_colormap, colour_table
from .overlay import Picture
from .sheets import LARGEST_SHEET
from .text import Theme, ThemeColors, pill, theme_colors, title_lines, wrap, write

Cell = float | str


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    notes: Sequence[str] = (),
    title: str = "",
    *,
    width: int = 960,
    theme: Theme = "dark",
    colormap: ColourMap = "ember",
) -> Picture:
    """A table of words: text as text, numbers 0..1 as a bar with its per cent (the prompt report as a picture).

    Args:
        headings: one for each column.
        rows: cells as many as headings; str is text, float a share (bars of a column share its largest value).
        notes: sentences below, each with a mark, wrapped.

    Raises:
        BadArgument: a row of another length, or a table of more than 8192 x 8192 pixels.
    """
    headings = checked_texts(headings, "The headings of a table are texts")
    notes = checked_texts(notes, "The notes below a table are texts")
    rows = [checked_row(row, "A row of a table is a row of cells") for row in checked_row(rows, "A table is a row of rows")]
    width = checked_pixels(width, "The width of a table", LARGEST_SHEET)
    if wrong := [row for row in rows if len(row) != len(headings)]:
        raise BadArgument(f"A table of {len(headings)} columns got a row of {len(wrong[0])} cells.")
    if others := [cell for row in rows for cell in row if not _is_cell(cell)]:
        raise BadArgument(f"A cell of a table is a text or a number from 0 to 1, not {quoted(others[0], 60)}.")
    checked_colormap(colormap)
    ink, line, margin, size = theme_colors(theme), 34, 28, 17
    titles, big = title_lines(title, width - 2 * margin, 22)
    wrapped = [wrap(note, width - 2 * margin - 22, size, 3) for note in notes]
    tall = 2 * margin + round(len(titles) * big * 1.4) + 12 * bool(titles) + line * (1 + len(rows))
    tall += 14 * bool(notes) + sum(round(len(part) * size * 1.4) + 6 for part in wrapped)
    if width * tall > LARGEST_SHEET or width < 240:
        raise BadArgument(f"A table of {len(rows)} rows, {width} pixels wide, cannot be drawn.")

    sheet = Image.new("RGB", (width, tall), ink.ground)
    draw = ImageDraw.Draw(sheet)
    y = float(margin)
    for text in titles:
        write(sheet, (margin, y + big * 0.7), text, width - 2 * margin, big, ink.text)
        y += big * 1.4
    y += 12 * bool(titles)
    spans = _spans(len(headings), margin, width)
    for heading, (left, right) in zip(headings, spans, strict=True):
        write(sheet, (left, y + line / 2), heading, right - left, 15, ink.quiet)
    y += line
    draw.line((margin, y - 3, width - margin, y - 3), fill=ink.panel, width=2)
    tops = [max((_share(row[k]) for row in rows), default=0.0) for k in range(len(headings))]
    for row in rows:
        for k, (left, right) in enumerate(spans):
            _table_cell(sheet, row[k], (left, right, y, line), tops[k], size, ink, colormap)
        y += line
    y += 14
    for part in wrapped:
        pill(sheet, margin + 2, y + size * 0.7, 8, 8, ink.accent)
        for text in part:
            write(sheet, (margin + 22, y + size * 0.7), text, width - 2 * margin - 22, size, ink.text)
            y += size * 1.4
        y += 6
    return np.asarray(sheet)


def _spans(columns: int, margin: int, width: int) -> list[tuple[float, float]]:
    """Left and right of each column; the first, with the words, is a little wider."""
    parts = [1.25] + [1.0] * (columns - 1)
    gap = 18
    unit = (width - 2 * margin - gap * (columns - 1)) / sum(parts)
    spans, left = [], float(margin)
    for part in parts:
        spans.append((left, left + part * unit))
        left += part * unit + gap
    return spans


def _is_cell(cell: Any) -> bool:
    try:
        return isinstance(cell, str) or (isinstance(cell, Real) and isinstance(float(cell), float))
    except OverflowError:
        return False


def _share(value: Cell) -> float:
    return 0.0 if isinstance(value, str) or not math.isfinite(value) else max(0.0, float(value))


def _table_cell(
    sheet: Image.Image,
    value: Cell,
    box: tuple[float, float, float, float],
    top: float,
    size: int,
    ink: ThemeColors,
    colormap: ColourMap,
) -> None:
    left, right, y, line = box
    middle = y + line / 2
    if isinstance(value, str):
        write(sheet, (left, middle), value, right - left, size, ink.text)
        return
    share = _share(value)
    room = right - left - 58
    pill(sheet, left, middle, room, 12, ink.panel)
    if top > 0 and share > 0:
        part = share / top
        shade = colour_table(colormap)[round(60 + 130 * part)]
        pill(sheet, left, middle, room * part, 12, (int(shade[0]), int(shade[1]), int(shade[2])))
    text = f"{value:.1%}" if math.isfinite(value) else "-"
    write(sheet, (right, middle), text, 54, 15, ink.quiet, "r")
