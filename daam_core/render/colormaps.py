"""Colour maps made here, by formula, in OKLab: even steps for the eye, lightness that only rises.

How a map is made: a path through OKLCh is given by a few knots of lightness, chroma and hue; the chroma is reduced
where sRGB cannot show it; then 256 points are taken along the path at equal distances in OKLab (Ottosson 2020).
Because the lightness of a one-sided map only rises, its order survives any colour blindness, and grey print too; the
two-sided map runs from blue over light grey to orange, the pair that all common kinds of colour blindness keep apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadArgument, quoted

ColourMap = str
"""One-sided: "ember" (night violet to warm light), "lagoon" (deep blue to pale lime), "gray". Two-sided: "tide". Or one of
`OPENCV_NAMES`, most of which are not made for the eye (see `colour_table`)."""
OPENCV_NAMES = (
    "autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool", "hsv", "pink", "hot", "parula", "magma",
    "inferno", "plasma", "viridis", "cividis", "twilight", "twilight_shifted", "turbo", "deepgreen",
)  # fmt: skip
"""OpenCV's colour maps; Matplotlib has most of them under the same names."""

Floats = NDArray[np.float64]

# Knots: lightness, chroma, hue in degrees.
PATHS: dict[str, list[tuple[float, float, float]]] = {
    "ember": [
        (0.17, 0.05, 290),
        (0.34, 0.15, 312),
        (0.50, 0.19, 358),
        (0.64, 0.20, 32),
        (0.80, 0.16, 70),
        (0.95, 0.09, 98),
    ],
    "lagoon": [
        (0.18, 0.06, 288),
        (0.36, 0.11, 274),
        (0.53, 0.10, 240),
        (0.68, 0.105, 195),
        (0.83, 0.12, 152),
        (0.96, 0.10, 112),
    ],
    "gray": [(0.13, 0.0, 0), (0.98, 0.0, 0)],
    "tide": [
        (0.42, 0.13, 262),
        (0.69, 0.11, 246),
        (0.95, 0.0, 246),
        (0.71, 0.12, 58),
        (0.46, 0.13, 42),
    ],
}

OKLAB_TO_CONES = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colour_table(name: ColourMap) -> NDArray[np.uint8]:
    """uint8 `[256, 3]` sRGB, read-only: entry 0 is the lowest value.

    Ours have even steps and rising lightness; of OpenCV's, only viridis, cividis, magma, inferno and plasma do.

    Raises:
        BadArgument: no map of that name.
    """
    return _table(checked_colormap(name))


@lru_cache(maxsize=32)
def _table(name: ColourMap) -> NDArray[np.uint8]:
    if name in OPENCV_NAMES:
        return _opencv_table(name)
    if name not in PATHS:
        raise BadArgument(
            f"There is no colour map {quoted(name, 60)}; there are {', '.join(PATHS)}, and OpenCV's {', '.join(OPENCV_NAMES)}."
        )
    lab = _even(_in_gamut(_path(PATHS[name])))
    table = np.rint(oklab_to_srgb(lab) * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


def _opencv_table(name: str) -> NDArray[np.uint8]:
    from ..opencv import cv2

    values = np.arange(256, dtype=np.uint8)[:, None]
    drawn = cv2.applyColorMap(values, getattr(cv2, f"COLORMAP_{name.upper()}"))
    table = np.ascontiguousarray(drawn[:, 0, ::-1], dtype=np.uint8)
    table.setflags(write=False)
    return table


def checked_colormap(name: ColourMap) -> ColourMap:
    """The name of a colour map. Raises BadArgument for what is no name; whether there is such a map, `colour_table` says."""
    if not isinstance(name, str):
        raise BadArgument(f"A colour map is named by a text such as 'ember', not {quoted(name, 60)}.")
    return name


def apply_colormap(values: NDArray[np.floating[Any]], name: ColourMap) -> NDArray[np.uint8]:
    """Values 0..1 of any shape -> uint8 `[..., 3]`. Raises BadArgument for no map of that name, and for no numbers."""
    table = colour_table(name)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise BadArgument(f"The values of colours are an array of numbers from 0 to 1, not {quoted(values, 60)}.")
    return np.take(table, np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), axis=0)


def oklab_to_srgb(lab: Floats) -> Floats:
    """OKLab `[..., 3]` -> sRGB `[..., 3]`, 0..1, cut to the gamut."""
    linear = np.clip(_linear_rgb(lab), 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_to_oklab(rgb: Floats) -> Floats:
    """sRGB `[..., 3]`, 0..1 -> OKLab `[..., 3]` (lightness 0..1, and two axes of colour): equal steps look equally large, so a
    colour map or the mean colour of a mask is judged in it.

    Example:
        >>> red, green = srgb_to_oklab(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        >>> round(float(red[0]), 2), round(float(green[0]), 2)
        (0.63, 0.87)
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.linalg.inv(CONES_TO_RGB).T)
    return cones @ np.linalg.inv(OKLAB_TO_CONES).T


def _linear_rgb(lab: Floats) -> Floats:
    return (lab @ OKLAB_TO_CONES.T) ** 3 @ CONES_TO_RGB.T


def _path(knots: list[tuple[float, float, float]], points: int = 2048) -> Floats:
    """A smooth OKLab path `[points, 3]` through the knots (the hue takes the shorter way round)."""
    lightness, chroma, hue = np.array(knots).T
    radians = np.unwrap(np.radians(hue))
    lab = np.stack([lightness, chroma * np.cos(radians), chroma * np.sin(radians)], 1)
    at = np.linspace(0, len(knots) - 1, points)
    if len(knots) > 2:
        return np.stack([_monotone(at, column) for column in lab.T], 1)
    return np.stack([np.interp(at, np.arange(len(knots)), column) for column in lab.T], 1)


def _monotone(at: Floats, values: Floats) -> Floats:
    """A cubic through `values` at 0, 1, 2 … that rises where they rise (Fritsch and Butland's slopes)."""
    steps = np.diff(values)
    before, after = steps[:-1], steps[1:]
    same_sign = before * after > 0
    harmonic = 2 * before * after / np.where(same_sign, before + after, 1)
    slopes = np.concatenate([steps[:1], np.where(same_sign, harmonic, 0), steps[-1:]])
    left = np.minimum(at.astype(int), len(values) - 2)
    t = at - left
    start = (1 + 2 * t) * (1 - t) ** 2 * values[left] + t * (1 - t) ** 2 * slopes[left]
    return start + t**2 * (3 - 2 * t) * values[left + 1] + t**2 * (t - 1) * slopes[left + 1]


def _in_gamut(lab: Floats) -> Floats:
    """The same lightness and hue with as much of the chroma as sRGB has (bisection)."""
    low, high = np.zeros(len(lab)), np.ones(len(lab))
    for _ in range(24):
        middle = (low + high) / 2
        rgb = _linear_rgb(lab * np.stack([np.ones_like(middle), middle, middle], 1))
        fits = ((rgb >= 0) & (rgb <= 1)).all(1)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return lab * np.stack([np.ones_like(low), low, low], 1)


def _even(lab: Floats, points: int = 256) -> Floats:
    """`points` points at equal distances along a path."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    at = np.linspace(0, length[-1], points)
    return np.stack([np.interp(at, length, column) for column in lab.T], 1)
