"""Text and its small shapes: fonts that are always there, words that always fit, and no alphabet that crashes."""

from __future__ import annotations

import importlib.util
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from ..errors import BadArgument, quoted

Theme = Literal["dark", "light"]
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font knows Latin letters. For others, what is usually installed is tried; where nothing is, a word shows
# little boxes, but never fails.
OTHER_ALPHABETS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoEmoji-Regular.ttf",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "seguiemj.ttf",
)
LONGEST = 400
"""Characters of a text that are looked at: no line shows more."""


@dataclass(frozen=True)
class ThemeColors:
    """The colours around the pictures."""

    ground: Colour
    panel: Colour
    text: Colour
    quiet: Colour
    accent: Colour


THEMES: dict[Theme, ThemeColors] = {
    "dark": ThemeColors((20, 21, 26), (38, 40, 48), (240, 240, 242), (158, 161, 172), (247, 150, 70)),
    "light": ThemeColors((250, 249, 246), (229, 227, 221), (28, 29, 34), (104, 106, 115), (200, 84, 22)),
}


def theme_colors(theme: Theme) -> ThemeColors:
    """The colours of a theme. Raises BadArgument for a theme that is not there."""
    if not isinstance(theme, str) or theme not in THEMES:
        raise BadArgument(f"There is no theme {quoted(theme)}; there are {', '.join(THEMES)}.")
    return THEMES[theme]


@lru_cache(maxsize=64)
def font(size: int) -> Font:
    """The font that ships with Pillow, in pixels."""
    try:
        return ImageFont.load_default(max(6, size))
    except TypeError:
        return _installed_font(max(6, size))


def _installed_font(size: int) -> Font:
    """A font from elsewhere: before 10.1 (A1111 and Forge pin 9.5) Pillow shipped none that has sizes.

    Raises:
        BadArgument: there is none.
    """
    plotting = importlib.util.find_spec("matplotlib")
    folders = [str(Path(plotting.origin).parent / "mpl-data" / "fonts" / "ttf") + "/"] if plotting and plotting.origin else []
    for folder in (*folders, ""):
        for name in (*OTHER_ALPHABETS, "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf"):
            try:
                return ImageFont.truetype(folder + name, size)
            except OSError:
                continue
    raise BadArgument("There is no font to write captions with: install Pillow 10.1 or newer, or matplotlib.")


def width_of(text: str, size: int) -> float:
    """Pixels from the start to the end of a line."""
    return float(sum(letters.getlength(part) for part, letters in runs(text, size)))


def runs(text: str, size: int) -> list[tuple[str, Font]]:
    """The text in pieces, each with a font that has its letters (Pillow's own where no font has them)."""
    pieces: list[tuple[str, Font]] = []
    for character in text:
        letters = _font_for(character, max(6, size), pieces[-1][1] if pieces else font(size))
        if pieces and pieces[-1][1] is letters:
            pieces[-1] = (pieces[-1][0] + character, letters)
        else:
            pieces.append((character, letters))
    return pieces


def clean(text: str) -> str:
    """One line that can be drawn: no line breaks, control characters or broken characters, not endless.

    Raises:
        BadArgument: it is no text.
    """
    if not isinstance(text, str):
        raise BadArgument(f"What is written on a picture is a text, not {quoted(text, 60)}.")
    line = " ".join(text[:LONGEST].split()).encode("utf-8", "replace").decode()
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Mn") or c == "\u0301")


def fit(text: str, width: float, size: int, least: int = 9) -> tuple[str, int]:
    """The text as it fits into `width` pixels: as it is, else smaller (to 70 %), else cut with an ellipsis.

    Args:
        size: wanted letter size in pixels.
        least: no letters smaller than this.

    Returns:
        (text, letter size); an empty text where not even an ellipsis has room.
    """
    text = clean(text)
    smallest = smallest_size(size, least)
    for points in range(size, smallest - 1, -1):
        if width_of(text, points) <= width:
            return text, points
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width_of(text[:middle].rstrip() + "…", smallest) <= width:
            fits = middle
        else:
            too_long = middle
    cut = text[:fits].rstrip() + "…"
    return (cut if width_of(cut, smallest) <= width else ""), smallest


def smallest_size(size: int, least: int = 9) -> int:
    """The letter size down to which `fit` goes before it cuts."""
    return min(size, max(least, round(0.7 * size)))


def fits(text: str, width: float, size: int) -> bool:
    """Whether `fit` has no need to cut the text."""
    return width_of(clean(text), smallest_size(size)) <= width


def write(
    canvas: Image.Image,
    at: tuple[float, float],
    text: str,
    width: float,
    size: int,
    colour: Colour,
    anchor: Literal["l", "r"] = "l",
) -> float:
    """Draws one line, vertically centred on `at` (x, y), fitted to `width`. Returns the width it took."""
    text, points = fit(text, width, size)
    taken = width_of(text, points)
    # Vertically by the height of "x8" in the own font, so that labels beside each other share a base line.
    base = at[1] - font(points).getbbox("x8", anchor="ls")[1] / 2
    left = at[0] - (taken if anchor == "r" else 0)
    draw = ImageDraw.Draw(canvas)
    for piece, letters in runs(text, points):
        draw.text((left, base), piece, fill=colour, font=letters, anchor="ls")
        left += letters.getlength(piece)
    return taken


def title_lines(title: str, width: float, size: int) -> tuple[list[str], int]:
    """Up to three lines of a title and their letter size."""
    lines = wrap(title, width, size, 3)
    if len(lines) > 1:
        size = max(13, round(size * 0.8))
        lines = wrap(title, width, size, 3)
    return lines, size


def wrap(text: str, width: float, size: int, most: int) -> list[str]:
    """Lines that fit into `width`; the last one is cut where there are more than `most`."""
    words = clean(text).split(" ") if clean(text) else []
    lines: list[str] = []
    while words and len(lines) < most - 1:
        taken = 1
        while taken < len(words) and width_of(" ".join(words[: taken + 1]), size) <= width:
            taken += 1
        lines.append(fit(" ".join(words[:taken]), width, size)[0])
        words = words[taken:]
    return [*lines, " ".join(words)] if words else lines


def wrap_whole(text: str, width: float, size: int) -> list[str]:
    """As many lines as the text takes where nothing of it is cut: between words, and inside a word that is wider than a line
    (alphabets without spaces, too). No line is empty; one of a single letter may be too wide."""
    lines: list[str] = []
    for word in clean(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for character in word:
            if lines[-1] and width_of(lines[-1] + character, size) > width:
                lines.append("")
            lines[-1] += character
    return lines


@lru_cache(maxsize=32)
def rounded(width: int, height: int, corner: float) -> Image.Image:
    """A mask of a rectangle with smooth round corners; `corner` is their radius as a part of the height."""
    big = Image.new("L", (4 * width, 4 * height), 0)
    ImageDraw.Draw(big).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * corner * height, fill=255)
    return big.resize((width, height), Image.Resampling.LANCZOS)


def pill(sheet: Image.Image, left: float, middle: float, width: float, height: int, fill: Colour) -> None:
    """A bar with round ends, at least as wide as it is high."""
    mask = rounded(max(height, round(width)), height, 0.5)
    sheet.paste(Image.new("RGB", mask.size, fill), (round(left), round(middle - height / 2)), mask)


def _font_for(character: str, size: int, previous: Font) -> Font:
    own = font(size)
    if _has(own, character):
        return own
    if character.isspace() or _has(previous, character):
        return previous
    others = (_installed(name, size) for name in OTHER_ALPHABETS)
    return next((other for other in others if other is not None and _has(other, character)), own)


@lru_cache(maxsize=64)
def _installed(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(letters: Font, character: str) -> bool:
    return _shape(letters, character) != _shape(letters, "\U0010fffe")


@lru_cache(maxsize=4096)
def _shape(letters: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = letters.getmask(character)
    return mask.size, bytes(mask)
