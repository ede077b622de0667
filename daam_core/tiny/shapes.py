"""Silhouettes of the picture-book world: every noun as a few filled polygons in a unit frame.

Coordinates are `(x, y)` in `[-1, 1]` with y pointing down. A shape is a tuple of `(polygon, fill)` from back to
front; a fill is `"main"`, `"dark"` or `"light"` (made from the colour that the caption names) or a fixed RGB.
Details are kept at least a tenth of a unit wide: thinner ones are lost by an autoencoder that keeps 4 numbers for
each 8x8 pixels. Every shape faces one way: where fish, cars and boats faced either, the model drew some with both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

RGB = tuple[int, int, int]
Polygon = npt.NDArray[np.float64]
Tone = Literal["main", "dark", "light"]
Fill = Tone | RGB
Shape = tuple[tuple[Polygon, Fill], ...]

WHITE: RGB = (250, 250, 245)
BLACK: RGB = (38, 38, 46)
BROWN: RGB = (122, 78, 44)
CREAM: RGB = (251, 232, 196)
TAN: RGB = (226, 188, 138)
LEAF: RGB = (72, 172, 84)


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0, points: int = 48) -> Polygon:
    """An ellipse, or its arc from `start` to `end` degrees (clockwise from the right)."""
    t = np.deg2rad(np.linspace(start, end, points))
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], axis=1)


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """An axis-parallel rectangle."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def polygon(*xy: float) -> Polygon:
    """A polygon from a flat list x0, y0, x1, y1, …"""
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def ring(outer: float, inner: float, spikes: int) -> Polygon:
    """A star with `spikes` tips, the first one pointing up."""
    t = np.deg2rad(-90.0 + np.arange(2 * spikes) * 180.0 / spikes)
    r = np.where(np.arange(2 * spikes) % 2 == 0, outer, inner)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def _house() -> Shape:
    return (
        (rectangle(0.36, -0.92, 0.64, -0.2), BROWN),
        (rectangle(-0.78, -0.15, 0.78, 0.95), "main"),
        (polygon(-1.0, -0.08, 0.0, -0.98, 1.0, -0.08), "dark"),
        (np.concatenate([ellipse(0.0, 0.42, 0.21, 0.21, 180, 360), polygon(0.21, 0.95, -0.21, 0.95)]), BROWN),
        (rectangle(-0.66, 0.12, -0.32, 0.5), CREAM),
        (rectangle(0.32, 0.12, 0.66, 0.5), CREAM),
    )


def _tree() -> Shape:
    return (
        (rectangle(-0.17, 0.5, 0.17, 1.0), BROWN),
        (polygon(-0.86, 0.66, 0.0, -0.3, 0.86, 0.66), "main"),
        (polygon(-0.58, 0.18, 0.0, 0.4, 0.58, 0.18), "dark"),
        (polygon(-0.7, 0.18, 0.0, -0.62, 0.7, 0.18), "main"),
        (polygon(-0.42, -0.28, 0.0, -0.1, 0.42, -0.28), "dark"),
        (polygon(-0.54, -0.28, 0.0, -1.0, 0.54, -0.28), "main"),
    )


def _sun() -> Shape:
    smile = np.concatenate([ellipse(0.0, 0.1, 0.3, 0.28, 0, 180), ellipse(0.0, 0.1, 0.3, 0.08, 180, 0)])
    return (
        (ring(1.0, 0.66, 12), "main"),
        (ellipse(0, 0, 0.66, 0.66), "dark"),
        (ellipse(0, 0, 0.57, 0.57), "light"),
        (ellipse(-0.22, -0.14, 0.1, 0.13), BLACK),
        (ellipse(0.22, -0.14, 0.1, 0.13), BLACK),
        (smile, BLACK),
    )


def _moon() -> Shape:
    # The inner circle passes through the tips of the outer arc, so that the crescent closes without a notch.
    tip = 0.96 * np.sin(np.deg2rad(52.0))
    x = 0.06 + 0.96 * np.cos(np.deg2rad(52.0))
    bite = ellipse(x + 0.28, 0.0, float(np.hypot(0.28, tip)), float(np.hypot(0.28, tip)), 250.0, 110.0, 48)
    crescent = np.concatenate([ellipse(0.06, 0.0, 0.96, 0.96, 52, 308, 64), bite])
    return (
        (crescent, "main"),
        (ellipse(-0.42, -0.46, 0.17, 0.17), "dark"),
        (ellipse(-0.55, 0.06, 0.13, 0.13), "dark"),
        (ellipse(-0.36, 0.5, 0.2, 0.2), "dark"),
    )


def _star() -> Shape:
    tips = ring(1.0, 0.46, 5)
    facets: list[tuple[Polygon, Fill]] = [(tips, "main")]
    for k in range(0, 10, 2):  # one half of every tip is lit, as in a folded paper star
        facets.append((np.array([[0.0, 0.0], tips[k], tips[(k + 1) % 10]]), "light"))
    return tuple(facets)


def _boat() -> Shape:
    return (
        (rectangle(-0.07, -1.0, 0.07, 0.4), BROWN),
        (polygon(0.12, -0.95, 0.12, 0.2, 0.9, 0.2), "light"),
        (polygon(-0.12, -0.72, -0.12, 0.2, -0.72, 0.2), "main"),
        (polygon(-1.0, 0.34, 1.0, 0.34, 0.64, 0.96, -0.64, 0.96), "main"),
        (polygon(-1.0, 0.34, 1.0, 0.34, 0.9, 0.52, -0.9, 0.52), "dark"),
    )


def _fish() -> Shape:
    return (
        (polygon(0.4, 0.0, 1.0, -0.6, 0.8, 0.0, 1.0, 0.6), "dark"),
        (polygon(-0.4, -0.4, 0.34, -0.84, 0.34, -0.3), "dark"),
        (ellipse(-0.2, 0.0, 0.8, 0.56), "main"),
        (ellipse(0.0, 0.0, 0.13, 0.5), "light"),
        (ellipse(0.33, 0.0, 0.1, 0.36), "light"),
        (ellipse(-0.6, -0.12, 0.19, 0.19), WHITE),
        (ellipse(-0.63, -0.12, 0.1, 0.1), BLACK),
    )


def _mushroom() -> Shape:
    cap = np.concatenate([ellipse(0, 0.1, 0.98, 1.02, 180, 360), ellipse(0, 0.1, 0.98, 0.22, 0, 180)])
    return (
        (polygon(-0.28, 0.1, 0.28, 0.1, 0.4, 0.98, -0.4, 0.98), TAN),
        (cap, "main"),
        (ellipse(-0.5, -0.2, 0.2, 0.22), WHITE),
        (ellipse(0.04, -0.5, 0.22, 0.2), WHITE),
        (ellipse(0.52, -0.12, 0.19, 0.21), WHITE),
    )


def _balloon() -> Shape:
    envelope = np.concatenate([ellipse(0, -0.28, 0.76, 0.72, 145, 395), polygon(0.2, 0.52, -0.2, 0.52)])
    stripe = np.concatenate([ellipse(0, -0.28, 0.3, 0.72, 170, 370), polygon(0.1, 0.52, -0.1, 0.52)])
    return (
        (polygon(-0.3, 0.4, -0.18, 0.4, -0.12, 0.76, -0.24, 0.76), BROWN),
        (polygon(0.3, 0.4, 0.18, 0.4, 0.12, 0.76, 0.24, 0.76), BROWN),
        (envelope, "main"),
        (stripe, "light"),
        (rectangle(-0.27, 0.68, 0.27, 1.0), BROWN),
    )


def _flower() -> Shape:
    angles = np.deg2rad(np.arange(6) * 60.0 + 30.0)
    petals = [(ellipse(0.44 * np.cos(a), -0.36 + 0.44 * np.sin(a), 0.27, 0.27), "main") for a in angles]
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    leaf = ellipse(0, 0, 0.38, 0.18) @ turn
    return (
        (rectangle(-0.08, 0.0, 0.08, 1.0), LEAF),
        (leaf * (-1, 1) + (0.34, 0.66), LEAF),
        (leaf + (-0.34, 0.66), LEAF),
        *((p, "main") for p, _ in petals),
        (ellipse(0, -0.36, 0.28, 0.28), "dark"),
        (ellipse(0, -0.36, 0.17, 0.17), CREAM),
    )


def _car() -> Shape:
    return (
        (polygon(-0.66, 0.0, -0.44, -0.56, 0.36, -0.56, 0.7, 0.0), "dark"),
        (polygon(-0.5, -0.06, -0.34, -0.44, -0.06, -0.44, -0.06, -0.06), WHITE),
        (polygon(0.07, -0.06, 0.07, -0.44, 0.28, -0.44, 0.5, -0.06), WHITE),
        (polygon(-1.0, -0.06, 0.86, -0.06, 1.0, 0.06, 1.0, 0.4, -1.0, 0.4), "main"),
        (rectangle(0.78, 0.04, 1.0, 0.2), CREAM),
        (ellipse(-0.52, 0.4, 0.27, 0.27), BLACK),
        (ellipse(0.52, 0.4, 0.27, 0.27), BLACK),
        (ellipse(-0.52, 0.4, 0.12, 0.12), WHITE),
        (ellipse(0.52, 0.4, 0.12, 0.12), WHITE),
    )


def _heart() -> Shape:
    t = np.linspace(0.0, 2.0 * np.pi, 72)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    outline = np.stack([x, y - 2.5], axis=1) / 16.5
    gloss = ellipse(0, 0, 0.27, 0.16) @ np.array([[0.77, -0.64], [0.64, 0.77]]) + (-0.45, -0.4)
    return ((outline, "dark"), (outline * 0.85 + (0.0, -0.05), "main"), (gloss, "light"))


_SHAPES: dict[str, Callable[[], Shape]] = {
    "house": _house,
    "tree": _tree,
    "sun": _sun,
    "moon": _moon,
    "star": _star,
    "boat": _boat,
    "fish": _fish,
    "mushroom": _mushroom,
    "balloon": _balloon,
    "flower": _flower,
    "car": _car,
    "heart": _heart,
}
NOUNS: tuple[str, ...] = tuple(_SHAPES)


@cache
def shape(noun: str) -> Shape:
    """The polygons of `noun`, back to front."""
    return _SHAPES[noun]()


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """`first` blended towards `second` by `share` in 0..1."""
    r, g, b = (round(p * (1 - share) + q * share) for p, q in zip(first, second, strict=True))
    return r, g, b


def rgb_of(fill: Fill, main: RGB) -> RGB:
    """The RGB of a fill when the caption's colour is `main`."""
    if fill == "main":
        return main
    if fill == "dark":
        return mix(main, (0, 0, 0), 0.36)
    if fill == "light":
        return mix(main, (255, 255, 255), 0.48)
    assert not isinstance(fill, str)
    return fill
