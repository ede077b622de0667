"""Pictures with words: the overlay with its caption, and the contact sheet of all words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument, quoted
from ..validate import checked_switch
from .arguments import checked_heats, checked_texts, checked_top
from .caption import Bar, Unit, caption_layout, captioned
from .colormaps import ColourMap, checked_colormap
from .overlay import (
    Background,
    Enlarge,
    Floats,
    Heat,
    Picture,
    as_heat,
    as_picture,
    background_of,
    blend_difference,
    blend_heatmap,
    enlarged,
)
from .text import Theme, ThemeColors, theme_colors, title_lines, write

SMALLEST = 256
"""Pixels of the shorter side of a picture that carries a caption: letters below it could not be read."""
CELL = 288
"""Pixels of the longer side of a picture in a contact sheet."""
NARROWEST = 192
"""Pixels of the narrowest card of a contact sheet: below it, a caption has no room. A narrower picture stands in the middle."""
LARGEST_SHEET = 2**26
"""Pixels of the largest sheet that is made (8192 x 8192)."""
_PICTURE = "picture"


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
    among: Sequence[str] = (),
) -> Picture:
    """One heat map over one picture, with a caption below it where a label or a bar is asked for.

    Args:
        picture: uint8 `[H, W, 3]` (or `[H, W]`, `[H, W, 4]`), a Pillow image, or the ground that serves many words
            (`caption_background`).
        heat: `[h, w]` of any size and real type, array or tensor; negative values and NaN count as no heat.
        opacity: 0 (the picture itself) .. 1.
        colormap: a name, see `colormaps.ColourMap`; "tide" is for a signed map (see `difference`).
        label: the word, any alphabet; where it has no room beside the bar, it takes up to four lines above it, and the
            caption grows.
        bar: a colour bar from 0 to the map's top, in the map's own numbers (see `unit`).
        top: the heat that gets the brightest colour; None: the map's own maximum.
        theme: "dark" or "light" ground of the caption.
        enlarge: "lanczos" or "nearest": how a picture below 256 px grows (by a whole factor) to carry a caption.
        unit: "%" shows the bar's numbers as percentages, of a map of shares 0..1; "" as they are.
        among: the labels of other pictures of a set: all captions of the set are of one height.

    Returns:
        uint8 `[H, W, 3]` without label and bar; `[H + caption, W, 3]` with one of them. A map that is the same
        everywhere says nothing about place, and draws no colour.

    Raises:
        BadArgument: a picture, map, opacity, colour map or theme that is none.
    """
    values = as_heat(heat)
    ink = theme_colors(theme)
    if label is not None and not isinstance(label, str):
        raise BadArgument(f"A label is a text, not {quoted(label, 60)}.")
    bar = checked_switch(bar, "bar")
    with_caption = label is not None or bar
    base = (
        picture
        if isinstance(picture, Background)
        else caption_background(picture, enlarge)
        if with_caption
        else background_of(picture)
    )
    drawn, legend = _drawn(base, values, opacity, colormap, top, unit)
    if not with_caption:
        return drawn
    shown = legend if bar else None
    layout = caption_layout(
        [label or "", *checked_texts(among, "among are the labels of other pictures, texts")], drawn.shape[1], shown
    )
    return captioned(drawn, label or "", shown, layout, ink, False)


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
    unit: Unit = "",
    among: Sequence[str] = (),
) -> Picture:
    """A signed map `[h, w]` over one picture: orange where it is above 0, blue below. Else as `overlay`."""
    return overlay(picture, change, opacity, "tide", label, bar, top=top, theme=theme, enlarge=enlarge, unit=unit, among=among)


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
    ink, same_scale = theme_colors(theme), checked_switch(same_scale, "same_scale")
    cell = _cell(as_picture(picture), enlarge)
    values = {word: as_heat(heat) for word, heat in checked_heats(heats).items()}
    top = max((float(v.max()) for v in values.values()), default=0.0) if same_scale else None
    if top is not None and top <= 0:
        top = None
    width = max(cell.shape[1], NARROWEST)
    layout = caption_layout([_PICTURE, *values], width, Bar(0.0, 0.0, colormap, unit))
    height = cell.shape[0] + layout.height
    count = len(values) + 1
    columns = checked_columns(columns)
    across = _columns(count, height, width) if columns is None else min(columns, count)
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
    ground = background_of(cell)
    cards = [captioned(_widened(cell, width, ink), _PICTURE, None, layout, ink, True)]
    for word, heat in values.items():
        drawn, legend = _drawn(ground, heat, opacity, colormap, top, unit)
        cards.append(captioned(_widened(drawn, width, ink), word, legend, layout, ink, False))
    for i, one in enumerate(cards):
        row, column = divmod(i, across)
        sheet.paste(Image.fromarray(one), (margin + column * (width + gap), above + row * (height + gap)))
    return np.asarray(sheet)


def checked_columns(columns: int | None) -> int | None:
    """The number of pictures in a row of a sheet, or None where the sheet chooses. Raises BadArgument."""
    if columns is None:
        return None
    if isinstance(columns, bool) or not isinstance(columns, (int, np.integer)) or columns < 1:
        raise BadArgument(f"A sheet needs a whole number of columns and at least one column, not {quoted(columns, 40)}.")
    return int(columns)


# -- parts -----------------------------------------------------------------------------------------------------------


def _drawn(
    base: Background, heat: Floats, opacity: float, colormap: ColourMap, top: float | None, unit: Unit
) -> tuple[Picture, Bar]:
    """A heat map over a picture, and what its colours mean. Raises BadArgument."""
    top, colormap = checked_top(top), checked_colormap(colormap)
    if colormap == "tide":
        reach = float(np.abs(heat).max()) if top is None else top
        return blend_difference(base, heat, opacity, top=top), Bar(-reach, reach, colormap, unit)
    high = max(0.0, float(heat.max())) if top is None else top
    return blend_heatmap(base, heat, opacity, colormap, top=top), Bar(0.0, high, colormap, unit)


def _widened(picture: Picture, width: int, ink: ThemeColors) -> Picture:
    """The picture in the middle of a panel of this width, where it is narrower."""
    missing = width - picture.shape[1]
    if missing <= 0:
        return picture
    wide = np.empty((picture.shape[0], width, 3), np.uint8)
    wide[:] = ink.panel
    wide[:, missing // 2 : missing // 2 + picture.shape[1]] = picture
    return wide


def _scale(shared: bool, unit: Unit) -> str:
    """What the colours of a sheet mean."""
    what = "share of the attention" if unit == "%" else "heat"
    return f"Colours: {what}; " + (
        "all words on one scale." if shared else "each word on its own scale, up to the number beside it."
    )


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
