"""Contact sheets of many pictures, each with a text of its own under it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from .text import theme_colors, wrap_whole, write

_GAP, _SIZE, _WRONG = 6, 10, (205, 30, 40)
_FRAME = 2
_LINE = 13
"""Pixels from one line of a caption to the next."""
_FEWEST, _MOST = 2, 6
"""Lines below each picture: as many as the longest caption takes."""


def captioned_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], right: Sequence[bool] | None = None, columns: int = 8
) -> Image.Image:
    """Pictures of one size in rows of `columns`, a caption under each, whole where six lines hold it.

    Args:
        captions: one for each picture, in any alphabet.
        right: pictures whose value is false get a red frame.
    """
    ink = theme_colors("light")
    width, height = pictures[0].size if pictures else (128, 128)
    down = max(1, math.ceil(len(pictures) / columns))
    written = [wrap_whole(text, width, _SIZE) for text in captions]
    most = min(_MOST, max([_FEWEST, *map(len, written)]))
    across, tall = width + _GAP, height + _FRAME + most * _LINE + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, down * tall + _GAP), ink.panel)
    for k, (picture, lines) in enumerate(zip(pictures, written, strict=True)):
        x, y = _GAP + (k % columns) * across, _GAP + (k // columns) * tall
        sheet.paste(picture.convert("RGB"), (x, y))
        if right is not None and not right[k]:
            ImageDraw.Draw(sheet).rectangle(
                (x - _FRAME, y - _FRAME, x + width + 1, y + height + 1), outline=_WRONG, width=_FRAME
            )
        shown = [*lines[: most - 1], " ".join(lines[most - 1 :])]
        for number, line in enumerate(filter(None, shown)):
            write(sheet, (x, y + height + _FRAME + (number + 0.5) * _LINE), line, width, _SIZE, ink.text)
    return sheet
