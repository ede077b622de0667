"""The matrix of words (text->text) as a picture: which word attends to which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..errors import BadArgument
from .colormaps import ColourMap, apply_colormap
from .overlay import Picture
from .text import Theme, theme_colors, title_lines, width_of, write

MOST_WORDS = 64
"""Rows and columns of a matrix that is drawn."""
_CELL, _LABEL, _MARGIN, _LETTERS = 34, 160, 24, 15


def word_matrix(
    labels: Sequence[str],
    values: NDArray[np.floating],
    title: str = "",
    *,
    theme: Theme = "dark",
    colormap: ColourMap = "ember",
) -> Picture:
    """A table of colours: a row for each word that attends, a column for each that is attended to, per cents in the cells.

    Args:
        labels: of rows and columns alike.
        values: `[labels, labels]` (row, column), 0 to 1; the warmest colour is the largest of them.

    Raises:
        BadArgument: values of another shape, no word, or more than 64.
    """
    count = len(labels)
    if values.shape != (count, count) or not 1 <= count <= MOST_WORDS:
        raise BadArgument(f"A matrix of 1 to {MOST_WORDS} words can be drawn; got {count} words and values of {values.shape}.")
    ink = theme_colors(theme)
    longest = min(_LABEL, max(width_of(label, _LETTERS) for label in labels) + 4)
    left = _MARGIN + round(longest) + 8
    width = max(320, left + count * _CELL + _MARGIN)
    titles, big = title_lines(title, width - 2 * _MARGIN, 20)
    top = _MARGIN + round(len(titles) * big * 1.4) + round(longest) + 8
    sheet = Image.new("RGB", (width, top + count * _CELL + _MARGIN), ink.ground)
    for i, text in enumerate(titles):
        write(sheet, (_MARGIN, _MARGIN + big * (0.7 + 1.4 * i)), text, width - 2 * _MARGIN, big, ink.text)
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
            write(sheet, (x + 4, y + _CELL / 2 - 1), f"{100 * finite[i, j]:.0f}", _CELL - 8, 12, ink_of_cell)
    return np.asarray(sheet)
