"""A sheet for a video: a strip of its frames, and below it one for each word, with the word's heat over the same frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument
from ..validate import checked_switch
from .arguments import checked_heats, checked_row, checked_sized
from .colormaps import ColourMap
from .overlay import Enlarge, Heat, Picture, as_heat, as_picture, checked_enlarge, enlarged
from .sheets import LARGEST_SHEET, checked_columns, overlay
from .text import Theme, theme_colors, title_lines, write

STRIP = 1240
"""Pixels that a strip is wide, about."""
TALLEST = 260
"""Pixels that a frame in it is high at most."""
MOST_COLUMNS = 6


def film_sheet(
    video: Sequence[ArrayLike | Image.Image],
    heats: Mapping[str, Sequence[Heat]],
    title: str = "",
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    *,
    same_scale: bool = False,
    columns: int | None = None,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
) -> Picture:
    """The video's frames in a strip, and a strip for each word.

    Args:
        video: the frames, uint8 `[H, W, 3]` each.
        heats: word -> its map `[h, w]` of each frame. A word's frames share one top, its largest value.
        title: the prompt, above; long ones take up to three lines.
        same_scale: one top for all words.
        columns: frames of a strip, evenly over the video, the first and the last among them; None: at most six.

    Raises:
        BadArgument: no frame, not as many maps as frames, no column, or a sheet beyond 8192 x 8192 pixels.
    """
    video, enlarge = checked_sized(video, "A video is a row of frames"), checked_enlarge(enlarge)
    heats = {
        word: checked_row(maps, "A word's maps are a row, one for each frame") for word, maps in checked_heats(heats).items()
    }
    if not len(video) or any(len(maps) != len(video) for maps in heats.values()):
        raise BadArgument(f"A video of {len(video)} frames takes as many maps of each word.")
    columns, same_scale = checked_columns(columns), checked_switch(same_scale, "same_scale")
    across = min(len(video), MOST_COLUMNS if columns is None else columns)
    shown = sorted({round(i * (len(video) - 1) / max(1, across - 1)) for i in range(across)})
    ink = theme_colors(theme)
    cells = [_fitted(as_picture(video[f]), STRIP // across, enlarge) for f in shown]
    height, width = cells[0].shape[:2]
    gap, margin, line, letters = 6, 28, 40, 18
    full = 2 * margin + len(shown) * width + (len(shown) - 1) * gap
    lines, size = title_lines(title, full - 2 * margin, 26)
    above = margin + (round(len(lines) * size * 1.35) + 8 if lines else 0)
    rows = len(heats) + 1
    tall = above + rows * (line + height) + margin
    if full * tall > LARGEST_SHEET:
        raise BadArgument(f"A film sheet of {rows} strips would have {full} x {tall} pixels: choose fewer words.")

    sheet = Image.new("RGB", (full, tall), ink.ground)
    for i, text in enumerate(lines):
        write(sheet, (margin, margin + (i + 0.5) * size * 1.35), text, full - 2 * margin, size, ink.text)
    values = {word: [as_heat(maps[f]) for f in shown] for word, maps in heats.items()}
    tops = {word: max(float(as_heat(one).max()) for one in maps) for word, maps in heats.items()}
    shared = max(tops.values(), default=0.0)
    for row, word in enumerate(["", *values]):
        y = above + row * (line + height)
        if word:
            write(sheet, (margin, y + line / 2), word, full - 2 * margin, letters, ink.text)
        top = shared if same_scale else tops.get(word, 0.0)
        for i, cell in enumerate(cells):
            x = margin + i * (width + gap)
            if not word:
                write(sheet, (x, y + line / 2), f"frame {shown[i] + 1} / {len(video)}", width, 15, ink.quiet)
            drawn = overlay(cell, values[word][i], opacity, colormap, top=top if top > 0 else None) if word else cell
            sheet.paste(Image.fromarray(drawn), (x, y + line))
    return np.asarray(sheet)


def _fitted(picture: Picture, width: int, enlarge: Enlarge) -> Picture:
    """A frame at the size that it has in a strip."""
    factor = min(width / picture.shape[1], TALLEST / picture.shape[0])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    if factor > 1 and enlarge == "nearest":
        return enlarged(picture, min(size), enlarge)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
