"""What stands below a picture: a label that is never cut where it has room to wrap, and a colour bar with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BadArgument, quoted
from .arguments import checked_pixels
from .colormaps import ColourMap, checked_colormap, colour_table
from .overlay import Picture
from .text import ThemeColors, fits, rounded, smallest_size, width_of, wrap_whole, write

Unit = Literal["", "%"]

MOST_LINES = 4
"""Lines of a label; what is longer ends in an ellipsis."""
_SHORTEST_BAR, _LONGEST_BAR = 16, 8192


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        low, high: what the colours at its ends stand for.
        unit: of these numbers.
    """

    low: float
    high: float
    colormap: ColourMap
    unit: Unit = ""

    def __post_init__(self) -> None:
        checked_colormap(self.colormap)
        if not isinstance(self.unit, str) or self.unit not in ("", "%"):
            raise BadArgument(f"The unit of a colour bar is '%' or '', not {quoted(self.unit, 40)}.")


@dataclass(frozen=True)
class CaptionLayout:
    """How captions of one width are laid out; those of a set of cards share it, so that the cards are of one size.

    Attributes:
        height: of the caption in pixels.
        size: of the letters of a label.
        lines: how many a label may take.
        below: the bar stands below the label and not beside it.
    """

    height: int
    size: int
    lines: int
    below: bool


def caption_layout(labels: Sequence[str], width: int, bar: Bar | None) -> CaptionLayout:
    """The layout in which every label fits: on one line beside the bar, else on several lines above it.

    Args:
        labels: of all cards of a set.
        width: of a card in pixels.
        bar: of one of the cards; its own numbers do not matter, so that cards of one kind share their layout. None where there
            is no bar.
    """
    height = max(34, round(width * 0.11))
    pad, size = _pad(height), round(height * 0.46)
    room = width - 2 * pad
    beside: float = room
    if bar is not None:
        low = number(-0.0888 if bar.colormap == "tide" else 0.0, bar.unit)
        beside -= _numbers(low, number(0.0888, bar.unit), height, bar.unit) + _bar_length(width) + pad
    if all(fits(label, beside, size) for label in labels):
        return CaptionLayout(height, size, 1, below=False)
    below = bar is not None
    if all(fits(label, room, size) for label in labels):
        lines = 1
    else:
        size = smallest_size(size)
        lines = min(MOST_LINES, max(len(wrap_whole(label, room, size)) for label in labels))
    tall = 2 * round(0.6 * pad) + lines * _line(size) + (_bar_row(height) if below else 0)
    return CaptionLayout(max(height, tall), size, lines, below)


def captioned(drawn: Picture, label: str, bar: Bar | None, layout: CaptionLayout, ink: ThemeColors, quiet: bool) -> Picture:
    """A picture with its caption below it: uint8 `[H + layout.height, W, 3]`.

    Args:
        quiet: the label is written in the colour of what matters less.
    """
    height, width = drawn.shape[:2]
    least = max(34, round(width * 0.11))
    pad = _pad(least)
    result = Image.new("RGB", (width, height + layout.height), ink.panel)
    result.paste(Image.fromarray(drawn), (0, 0))
    room: float = width - 2 * pad
    lines = [label] if layout.lines == 1 else _lines(label, room, layout)
    middle = height + layout.height / 2
    if bar is not None:
        if layout.below:
            row = _bar_row(least)
            _draw_bar(result, (width - pad, height + layout.height - round(0.6 * pad) - row / 2), least, bar, ink)
            middle -= row / 2
        else:
            need = width_of(label, smallest_size(layout.size)) if label else 0.0
            numbers = _numbers(number(bar.low, bar.unit), number(bar.high, bar.unit), least, bar.unit)
            length = max(_SHORTEST_BAR, min(_bar_length(width), round(room - pad - need - numbers - 1)))
            room -= _draw_bar(result, (width - pad, middle), least, bar, ink, length) + pad
    step = _line(layout.size)
    for number_of_line, line in enumerate(lines):
        at = middle + (number_of_line - (len(lines) - 1) / 2) * step
        write(result, (pad, at), line, room, layout.size, ink.quiet if quiet else ink.text)
    return np.asarray(result)


def colour_bar(width: int, height: int, colormap: ColourMap) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`: the colour map from left to right. Raises BadArgument for no map of that name, or no size."""
    width, height = checked_pixels(width, "width", _LONGEST_BAR), checked_pixels(height, "height", _LONGEST_BAR)
    at = np.rint(np.linspace(0, 255, width)).astype(np.uint8)
    return np.broadcast_to(colour_table(colormap)[at], (height, width, 3)).copy()


def number(value: float, unit: Unit = "") -> str:
    """Three digits that matter, without noise: 0, 0.043, 12.5, 3.1e-07, 1.25e+06; as a percentage: 0 %, 4.3 %."""
    if unit == "%":
        return f"{number(float(f'{100 * value:.2g}'))} %"
    return "0" if value == 0 else f"{value:.3g}".replace("-", "−")


# -- parts -----------------------------------------------------------------------------------------------------------


def _lines(label: str, room: float, layout: CaptionLayout) -> list[str]:
    """At most as many lines as the layout has; the last one takes what is left, and is cut when it is drawn."""
    whole = wrap_whole(label, room, layout.size)
    kept = whole[: layout.lines]
    if len(whole) > len(kept):
        kept[-1] = " ".join(whole[layout.lines - 1 :])
    return kept


def _draw_bar(
    canvas: Image.Image, end: tuple[float, float], height: int, bar: Bar, ink: ThemeColors, length: int | None = None
) -> float:
    """A colour bar with a number at each side, its right end at `end`. Returns the width it took.

    Args:
        height: of a caption of one line.
        length: of the bar in pixels; None: as it is where it has room.
    """
    low, high = number(bar.low, bar.unit), number(bar.high, bar.unit)
    size, thick, gap = _letters(height), _thick(height), _gap(height)
    length = _bar_length(canvas.width) if length is None else length
    at_most = max(length, _bar_length(canvas.width))
    # Room for four digits at least, so that the bars of a sheet stand in line.
    room = max(width_of(high, size), width_of(number(0.0888, bar.unit), size))
    taken = gap + max(room, write(canvas, (end[0] - room, end[1]), high, at_most, size, ink.quiet))
    left = round(end[0] - taken - length)
    strip = Image.fromarray(colour_bar(length, thick, bar.colormap))
    canvas.paste(strip, (left, round(end[1] - thick / 2)), rounded(length, thick, 0.3))
    return taken + length + gap + write(canvas, (left - gap, end[1]), low, at_most, size, ink.quiet, "r")


def _numbers(low: str, high: str, height: int, unit: Unit) -> float:
    """Pixels that the numbers at the sides of a bar take."""
    size = _letters(height)
    return 2 * _gap(height) + width_of(low, size) + max(width_of(high, size), width_of(number(0.0888, unit), size))


def _pad(height: int) -> int:
    return round(height * 0.28)


def _thick(height: int) -> int:
    return round(height * 0.3)


def _letters(height: int) -> int:
    return max(11, round(_thick(height) * 1.15))


def _gap(height: int) -> int:
    return round(_letters(height) * 0.45)


def _bar_length(width: int) -> int:
    return max(1, round(width * 0.26))


def _bar_row(height: int) -> int:
    return round(1.6 * _letters(height))


def _line(size: int) -> int:
    return round(1.3 * size)
