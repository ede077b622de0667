"""The matrix of words (text->text) as a picture: which word attends to which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..errors import BadArgument, quoted
from .arguments import checked_texts
from .caption import colour_bar, number
from .colormaps import ColourMap, apply_colormap
from .overlay import Picture
from .text import Theme, ThemeColors, theme_colors, title_lines, width_of, wrap, write

MOST_WORDS = 64
"""Rows and columns of a matrix that is drawn."""
_CELL, _LABEL, _MARGIN, _LETTERS, _SMALL = 36, 160, 24, 15, 13
_LEAST_WIDTH = 420
_READING = "How much the word of a row attends to the word of a column, in per cent of all that it attends to."


def word_matrix(
    labels: Sequence[str],
    values: NDArray[np.floating],
    title: str = "",
    *,
    theme: Theme = "dark",
    colormap: ColourMap = "ember",
) -> Picture:
    """A table of colours: a row for each word that attends, a column for each that is attended to, per cents in the cells, and
    below them what colours and numbers mean.

    Args:
        labels: of rows and columns alike.
        values: `[labels, labels]` (row, column), 0 to 1; the warmest colour is the largest of them.

    Raises:
        BadArgument: values of another shape, no word, or more than 64.
    """
    labels = checked_texts(labels, "The words of a matrix are texts")
    count = len(labels)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise BadArgument(f"The values of a matrix are an array of numbers [words, words], not {quoted(values, 60)}.")
    if values.shape != (count, count) or not 1 <= count <= MOST_WORDS:
        raise BadArgument(f"A matrix of 1 to {MOST_WORDS} words can be drawn; got {count} words and values of {values.shape}.")
    ink = theme_colors(theme)
    longest = min(_LABEL, max(width_of(label, _LETTERS) for label in labels) + 4)
    left = _MARGIN + round(longest) + 8
    width = max(_LEAST_WIDTH, left + count * _CELL + _MARGIN)
    room = width - 2 * _MARGIN
    titles, big = title_lines(title, room, 20)
    reading = wrap(_READING, room, _SMALL, 3)
    line = round(_SMALL * 1.4)
    top = _MARGIN + round(len(titles) * big * 1.4) + round(longest) + 16
    end = top + count * _CELL + 14
    sheet = Image.new("RGB", (width, end + line * (len(reading) + 1) + 10 + _MARGIN), ink.ground)
    for i, text in enumerate(titles):
        write(sheet, (_MARGIN, _MARGIN + big * (0.7 + 1.4 * i)), text, room, big, ink.text)
    finite = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0).clip(0)
    colours = apply_colormap(finite / max(float(finite.max()), 1e-12), colormap)
    draw = ImageDraw.Draw(sheet)
    for i, label in enumerate(labels):
        write(sheet, (left - 8, top + (i + 0.5) * _CELL), label, longest, _LETTERS, ink.text, "r")
        upright = Image.new("RGB", (round(longest), _CELL), ink.ground)
        write(upright, (0, _CELL / 2), label, longest, _LETTERS, ink.text)
        sheet.paste(upright.rotate(90, expand=True), (left + i * _CELL, top - 8 - round(longest)))
        for j in range(count):
            shade = tuple(int(c) for c in colours[i, j])
            x, y = left + j * _CELL, top + i * _CELL
            draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=shade)
            ink_of_cell = (20, 21, 26) if sum(shade) > 380 else (240, 240, 242)
            write(sheet, (x + 3, y + _CELL / 2 - 1), _per_cent(finite[i, j]), _CELL - 7, 12, ink_of_cell)
    _scale(sheet, (left, end + line / 2), float(finite.max()), colormap, ink)
    for i, text in enumerate(reading):
        write(sheet, (_MARGIN, end + 10 + line * (i + 1.5)), text, room, _SMALL, ink.quiet)
    return np.asarray(sheet)


def _per_cent(value: float) -> str:
    """Of a hundred, in at most four letters: 12, 4.3, 0.12, 0.05."""
    share = 100 * value
    return f"{share:.0f}" if share >= 9.95 else f"{share:.1f}" if share >= 0.995 else f"{share:.2f}"


def _scale(sheet: Image.Image, at: tuple[float, float], top: float, colormap: ColourMap, ink: ThemeColors) -> None:
    """The colours from none to the largest value, with these numbers; its left end at `at`."""
    length, thick = 120, 12
    low = write(sheet, at, "0 %", 40, _SMALL, ink.quiet)
    sheet.paste(Image.fromarray(colour_bar(length, thick, colormap)), (round(at[0] + low + 8), round(at[1] - thick / 2)))
    write(sheet, (at[0] + low + length + 16, at[1]), number(top, "%"), 80, _SMALL, ink.quiet)
