"""Pictures with words: the overlay with its caption, and the contact sheet of all words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument
from .colormaps import ColourMap, colour_table
from .overlay import (
    Background,
    Enlarge,
    Heat,
    Picture,
    as_heat,
    as_picture,
    background_of,
    blend_difference,
    blend_heatmap,
    enlarged,
)
from .text import Theme, ThemeColors, rounded, theme_colors, title_lines, width_of, write

Unit = Literal["", "%"]

SMALLEST = 256
"""Pixels of the shorter side of a picture that carries a caption: letters below it could not be read."""
CELL = 288
"""Pixels of the longer side of a picture in a contact sheet."""
LARGEST_SHEET = 2**26
"""Pixels of the largest sheet that is made (8192 x 8192)."""


def overlay(
    picture: ArrayLike | Image.Image | Background,
    heat: Heat,
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    label: str | None = None,
    bar: bool = False,
    *,
    top: float | None = None,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
    unit: Unit = "",
) -> Picture:
    """One heat map over one picture, with a caption below it where a label or a bar is asked for.

    Args:
        picture: uint8 `[H, W, 3]` (or `[H, W]`, `[H, W, 4]`), a Pillow image, or the ground that serves many words
            (`caption_background`).
        heat: `[h, w]` of any size and real type, array or tensor; negative values and NaN count as no heat.
        opacity: 0 (the picture itself) .. 1.
        colormap: "ember", "lagoon" or "gray"; "tide" for a signed map (see `difference`).
        label: the word; shrunk and cut so that it fits; any alphabet.
        bar: a colour bar from 0 to the map's top, in the map's own numbers (see `unit`).
        top: the heat that gets the brightest colour; None: the map's own maximum.
        theme: "dark" or "light" ground of the caption.
        enlarge: "lanczos" or "nearest": how a picture below 256 px grows (by a whole factor) to carry a caption.
        unit: "%" shows the bar's numbers as percentages, of a map of shares 0..1; "" as they are.

    Returns:
        uint8 `[H, W, 3]` without label and bar; `[H + caption, W, 3]` with one of them. A map that is the same
        everywhere says nothing about place, and draws no colour.

    Raises:
        BadArgument: a picture, map, opacity, colour map or theme that is none.
    """
    values = as_heat(heat)
    ink = theme_colors(theme)
    with_caption = label is not None or bar
    base = (
        picture
        if isinstance(picture, Background)
        else caption_background(picture, enlarge)
        if with_caption
        else background_of(picture)
    )
    if colormap == "tide":
        drawn = blend_difference(base, values, opacity, top=top)
        reach = float(np.abs(values).max()) if top is None else top
        span = (-reach, reach)
    else:
        drawn = blend_heatmap(base, values, opacity, colormap, top=top)
        span = (0.0, max(0.0, float(values.max())) if top is None else top)
    return _captioned(drawn, label or "", bar, span, colormap, ink, unit=unit) if with_caption else drawn


def caption_background(picture: ArrayLike | Image.Image, enlarge: Enlarge = "lanczos") -> Background:
    """A picture made ready for many `overlay`s with captions, enlarged as they need it. Raises BadArgument."""
    return background_of(enlarged(picture, SMALLEST, enlarge))


def difference(
    picture: ArrayLike | Image.Image,
    change: Heat,
    opacity: float = DEFAULT_OPACITY,
    label: str | None = None,
    bar: bool = False,
    *,
    top: float | None = None,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
) -> Picture:
    """A signed map `[h, w]` over one picture: orange where it is above 0, blue below. Else as `overlay`."""
    return overlay(picture, change, opacity, "tide", label, bar, top=top, theme=theme, enlarge=enlarge)


def contact_sheet(
    picture: ArrayLike | Image.Image,
    heats: Mapping[str, Heat],
    title: str = "",
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    *,
    same_scale: bool = False,
    columns: int | None = None,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
    unit: Unit = "",
) -> Picture:
    """The picture and all of its words on one sheet, with a line below that tells their scale.

    Args:
        heats: word -> map, in the order in which they are shown.
        title: the prompt, above; long ones take up to three lines.
        same_scale: one top for all words (their strengths compare) instead of each word's own maximum.
        columns: pictures in a row; None: what gives the most pleasant shape.
        unit: "%" for maps of shares 0..1; see `overlay`.

    Raises:
        BadArgument: a sheet beyond 8192 x 8192 pixels, or no column.
    """
    ink = theme_colors(theme)
    cell = _cell(as_picture(picture), enlarge)
    values = {word: as_heat(heat) for word, heat in heats.items()}
    top = max((float(v.max()) for v in values.values()), default=0.0) if same_scale else None
    if top is not None and top <= 0:
        top = None
    height, width = cell.shape[0] + _caption_height(cell.shape[1]), cell.shape[1]
    count = len(values) + 1
    across = _columns(count, height, width) if columns is None else min(columns, count)
    if across < 1:
        raise BadArgument(f"A contact sheet needs at least one column, not {columns}.")
    down = math.ceil(count / across)
    gap = max(12, round(width / 18))
    margin = round(1.6 * gap)
    full = 2 * margin + across * width + (across - 1) * gap
    lines, size = title_lines(title, full - 2 * margin, max(16, round(width / 13)))
    above = margin + (round(len(lines) * size * 1.35 + 0.6 * gap) if lines else 0)
    small = max(12, round(width / 22))
    below = round(1.9 * small) if values else 0
    tall = above + down * height + (down - 1) * gap + below + margin
    if full * tall > LARGEST_SHEET:
        raise BadArgument(f"A contact sheet of {count} pictures would have {full} x {tall} pixels: choose fewer words.")

    sheet = Image.new("RGB", (full, tall), ink.ground)
    for i, line in enumerate(lines):
        write(sheet, (margin, margin + (i + 0.5) * size * 1.35), line, full - 2 * margin, size, ink.text)
    if values:
        write(sheet, (margin, tall - margin - small / 2), _scale(top is not None, unit), full - 2 * margin, small, ink.quiet)
    ground = caption_background(cell, enlarge)
    cards = [_captioned(cell, "picture", False, (0.0, 0.0), colormap, ink, quiet=True)]
    cards += [
        overlay(ground, heat, opacity, colormap, word, True, top=top, theme=theme, unit=unit) for word, heat in values.items()
    ]
    for i, one in enumerate(cards):
        row, column = divmod(i, across)
        sheet.paste(Image.fromarray(one), (margin + column * (width + gap), above + row * (height + gap)))
    return np.asarray(sheet)


# -- parts -----------------------------------------------------------------------------------------------------------


def colour_bar(width: int, height: int, colormap: ColourMap) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`: the colour map from left to right."""
    at = np.rint(np.linspace(0, 255, width)).astype(np.uint8)
    return np.broadcast_to(colour_table(colormap)[at], (height, width, 3)).copy()


def number(value: float, unit: Unit = "") -> str:
    """Three digits that matter, without noise: 0, 0.043, 12.5, 3.1e-07, 1.25e+06; as a percentage: 0 %, 4.3 %."""
    if unit == "%":
        return f"{number(float(f'{100 * value:.2g}'))} %"
    return "0" if value == 0 else f"{value:.3g}".replace("-", "−")


def _scale(shared: bool, unit: Unit) -> str:
    """What the colours of a sheet mean."""
    what = "share of the attention" if unit == "%" else "heat"
    return f"Colours: {what}; " + (
        "all words on one scale." if shared else "each word on its own scale, up to the number beside it."
    )


def _caption_height(width: int) -> int:
    return max(34, round(width * 0.11))


def _captioned(
    drawn: Picture,
    label: str,
    bar: bool,
    span: tuple[float, float],
    colormap: ColourMap,
    ink: ThemeColors,
    quiet: bool = False,
    unit: Unit = "",
) -> Picture:
    """A picture with its caption: the word on the left, the bar with its numbers on the right."""
    height, width = drawn.shape[:2]
    caption = _caption_height(width)
    pad, size = round(caption * 0.28), round(caption * 0.46)
    result = Image.new("RGB", (width, height + caption), ink.panel)
    result.paste(Image.fromarray(drawn), (0, 0))
    middle = height + caption / 2
    room = width - 2 * pad
    if bar:
        length, thick = round(width * 0.26), round(caption * 0.3)
        room -= _bar(result, (width - pad, middle), length, thick, span, colormap, ink, unit) + pad
    write(result, (pad, middle), label, room, size, ink.quiet if quiet else ink.text)
    return np.asarray(result)


def _bar(
    canvas: Image.Image,
    end: tuple[float, float],
    length: int,
    thick: int,
    span: tuple[float, float],
    colormap: ColourMap,
    ink: ThemeColors,
    unit: Unit = "",
) -> float:
    """A colour bar with a number at each side, its right end at `end`. Returns the width it took."""
    size = max(11, round(thick * 1.15))
    low, high = (number(v, unit) for v in span)
    gap = round(size * 0.45)
    # Room for four digits at least, so that the bars of a sheet stand in line.
    room = max(width_of(high, size), width_of(number(0.0888, unit), size))
    taken = gap + max(room, write(canvas, (end[0] - room, end[1]), high, length, size, ink.quiet))
    left = round(end[0] - taken - length)
    bar = Image.fromarray(colour_bar(length, thick, colormap))
    canvas.paste(bar, (left, round(end[1] - thick / 2)), rounded(length, thick, 0.3))
    return taken + length + gap + write(canvas, (left - gap, end[1]), low, length, size, ink.quiet, "r")


def _cell(picture: Picture, enlarge: Enlarge) -> Picture:
    """The picture at the size it has in a sheet."""
    height, width = picture.shape[:2]
    factor = max(CELL / max(height, width), SMALLEST / min(height, width) if max(height, width) < 2 * CELL else 0)
    if factor >= 1:
        return enlarged(picture, SMALLEST, enlarge)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _columns(count: int, height: int, width: int) -> int:
    """The number of columns whose sheet comes closest to 16:10 with few empty places."""

    def ugliness(across: int) -> float:
        down = math.ceil(count / across)
        shape = math.log(across * width / (down * height) / 1.6)
        return shape * shape + 0.5 * (across * down - count) / count

    return min(range(1, count + 1), key=ugliness)
