"""Drawn scenes of the bed of masks: other silhouettes, grounds and sizes than the embedded model's own world, exact masks.

A scene is a pure function of its kind, its number and its size. The nouns and colours are those that the embedded model
knows; nothing else is taken from its world: silhouettes, grounds and textures are drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..opencv import cv2
from ..tiny.captions import Thing, caption
from ..tiny.scenes import COLOURS
from ..tiny.shapes import BROWN, CREAM, RGB, TAN, WHITE, Polygon, Shape, ellipse, mix, polygon, rectangle, rgb_of, ring
from ..types import Size

BED_SEED = 515_253
SUPERSAMPLING = 4
KINDS = (
    "flat",
    "gradient",
    "stripes",
    "photo-like",
    "textured",
    "checkered",
    "touching two colours",
    "touching one colour",
    "small",
    "low contrast",
    "cut by the border",
    "thin",
)
"""What a scene puts to the test: its ground (the first six) or its objects."""

_GROUNDS: tuple[RGB, ...] = ((238, 232, 214), (60, 66, 84), (170, 196, 214), (206, 188, 160), (120, 134, 118), (222, 222, 226))
_CONTRAST = 0.25
Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BedScene:
    """A picture, uint8 `[H, W, 3]`, its caption, and the exact mask of each noun, bool `[H, W]`."""

    kind: str
    number: int
    image: Picture
    caption: str
    masks: Mapping[str, Mask]


@dataclass(frozen=True)
class _Object:
    noun: str
    colour: str
    main: RGB
    centre: tuple[float, float]
    side: float
    turn: float
    shape: Shape


def bed_scene(kind: str, number: int, size: Size = (128, 128)) -> BedScene:
    """Scene `number` of a kind (see `KINDS`) at `size` = (height, width) in pixels."""
    rng = np.random.default_rng([BED_SEED, KINDS.index(kind), number, *size])
    objects = _objects(rng, kind, size)
    canvas = _canvas(rng, kind, size)
    masks: list[Picture] = []
    if kind == "low contrast":
        ground = tuple(int(v) for v in canvas[0, 0])
        objects = [_faded(one, ground) for one in objects]
    for one in objects:
        mask = np.zeros(canvas.shape[:2], np.uint8)
        for points, fill in _polygons(one):
            _fill(canvas, points, fill)
            _fill(mask, points, 255)
        masks = [np.where(mask > 0, 0, other).astype(np.uint8) for other in masks] + [mask]
    image = cv2.resize(canvas, (size[1], size[0]), interpolation=cv2.INTER_AREA).astype(np.uint8)
    exact = [cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_AREA) > 127 for mask in masks]
    for i in range(len(exact)):  # a pixel that two share to halves belongs to the one in front
        for front in exact[i + 1 :]:
            exact[i] &= ~front
    if kind == "textured":
        image = _textured(rng, image, np.logical_or.reduce(exact))
    said = caption([Thing(one.noun, one.colour) for one in objects], "next to" if kind.startswith("touching") else "and")
    return BedScene(kind, number, image, said.text, {one.noun: mask for one, mask in zip(objects, exact, strict=True)})


# -- objects -----------------------------------------------------------------------------------------------------------


def _objects(rng: np.random.Generator, kind: str, size: Size) -> list[_Object]:
    shapes = _thin_shapes() if kind == "thin" else _shapes()
    unit = float(min(size))
    touching = kind.startswith("touching")
    nouns = [str(noun) for noun in rng.choice(list(_WIDE if touching else shapes), 2, replace=False)]
    names = [str(name) for name in rng.choice(list(COLOURS), 2, replace=False)]
    if kind == "touching one colour":
        names[1] = names[0]
    turns = rng.uniform(-6, 6, 2)
    if touching:
        sides = [unit * float(s) for s in rng.uniform(0.42, 0.48, 2)]
        y, x = size[0] / 2 + unit * float(rng.uniform(-0.12, 0.12)), size[1] / 2 + unit * float(rng.uniform(-0.03, 0.03))
        # Each of these silhouettes is as wide as its frame at half its height: frames that overlap a little touch there.
        centres = [(x - 0.46 * sides[0], y), (x + 0.46 * sides[1], y + unit * float(rng.uniform(-0.05, 0.05)))]
        turns = turns / 3
    else:
        least, most = {"small": (0.15, 0.21), "thin": (0.6, 0.8)}.get(kind, (0.42, 0.66))
        sides = [unit * float(rng.uniform(least, most))]
        centres = [_centre(rng, kind, size, sides[0])]
    mains = [tuple(int(v) for v in np.clip(np.array(COLOURS[n]) + rng.integers(-8, 9, 3), 0, 255)) for n in names]
    if kind == "touching one colour":
        mains[1] = mains[0]
    return [
        _Object(noun, name, (main[0], main[1], main[2]), centre, side, float(turn), shapes[noun])
        for noun, name, main, centre, side, turn in zip(nouns, names, mains, centres, sides, turns, strict=False)
    ]


def _centre(rng: np.random.Generator, kind: str, size: Size, side: float) -> tuple[float, float]:
    margins = [side / 2 + 2, side / 2 + 2]
    x, y = (float(rng.uniform(m, max(m + 1, length - m))) for m, length in zip(margins, (size[1], size[0]), strict=True))
    if kind == "cut by the border":
        cut = float(rng.uniform(0.1, 0.25)) * side
        match int(rng.integers(4)):
            case 0:
                x = cut
            case 1:
                x = size[1] - cut
            case 2:
                y = cut
            case _:
                y = size[0] - cut
    return x, y


def _faded(one: _Object, ground: tuple[int, ...]) -> _Object:
    """The same object with all its paints brought to a quarter of their distance from the ground."""
    back = (ground[0], ground[1], ground[2])
    shape = tuple((points, mix(back, rgb_of(paint, one.main), _CONTRAST)) for points, paint in one.shape)
    return _Object(one.noun, one.colour, one.main, one.centre, one.side, one.turn, shape)


def _polygons(one: _Object) -> list[tuple[Polygon, RGB]]:
    a = np.deg2rad(one.turn)
    frame = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * (one.side / 2)
    return [(points @ frame.T + one.centre, rgb_of(paint, one.main)) for points, paint in one.shape]


def _fill(canvas: Picture, points: Polygon, fill: RGB | int) -> None:
    fixed = np.round(points * SUPERSAMPLING * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], fill, cv2.LINE_8, 4)


# -- grounds -----------------------------------------------------------------------------------------------------------


def _canvas(rng: np.random.Generator, kind: str, size: Size) -> Picture:
    """The ground, uint8 `[4 H, 4 W, 3]`."""
    height, width = size
    first, second = (np.array(_GROUNDS[int(i)], np.float32) for i in rng.choice(len(_GROUNDS), 2, replace=False))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit = float(min(size))
    angle = float(rng.uniform(0, np.pi))
    along = (np.cos(angle) * x + np.sin(angle) * y) / unit
    period = float(rng.uniform(0.09, 0.16))
    match kind:
        case "gradient":
            share = (along - along.min()) / (along.max() - along.min())
        case "stripes":
            share = (np.floor(along / period) % 2).astype(np.float32)
        case "checkered":
            share = ((np.floor(x / (period * unit)) + np.floor(y / (period * unit))) % 2).astype(np.float32)
        case "photo-like" | "textured":
            return _enlarged(_photo_like(rng, size, first))
        case _:
            share = np.zeros(size, np.float32)
    return _enlarged(np.round(first + (second - first) * share[..., None]).astype(np.uint8))


def _enlarged(image: Picture) -> Picture:
    return image.repeat(SUPERSAMPLING, 0).repeat(SUPERSAMPLING, 1)


def _photo_like(rng: np.random.Generator, size: Size, mean: Values) -> Picture:
    """Noise with the spectrum of photographs (amplitude falls as 1/f), lightness strong and hue weak."""
    light, hue = natural_noise(rng, size), np.stack([natural_noise(rng, size) for _ in range(3)], -1)
    return np.clip(np.round(mean + 22 * light[..., None] + 7 * hue), 0, 255).astype(np.uint8)


def natural_noise(rng: np.random.Generator, size: Size, fall: float = 1.0) -> Values:
    """Noise whose amplitude falls as 1 / frequency^fall; mean 0, standard deviation 1; float32 `[H, W]`."""
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width)
    frequency[0, 0] = 1
    white = np.fft.fft2(rng.normal(0, 1, size))
    white[0, 0] = 0
    values = np.fft.ifft2(white / frequency**fall).real
    return (values / max(float(values.std()), 1e-9)).astype(np.float32)


def _textured(rng: np.random.Generator, image: Picture, inside: Mask) -> Picture:
    """A texture of its own on the objects: finer noise, as strong as that of the ground."""
    noise = natural_noise(rng, (image.shape[0], image.shape[1]), 0.6)
    grain = np.where(inside[..., None], 15 * noise[..., None], 0)
    return np.clip(np.round(image + grain), 0, 255).astype(np.uint8)


# -- silhouettes -------------------------------------------------------------------------------------------------------

_WIDE = ("house", "car", "sun", "flower", "tree", "balloon")


def _shapes() -> dict[str, Shape]:
    """Other silhouettes of the known nouns, polygons in a unit frame, back to front."""
    petals: Shape = tuple(
        (ellipse(0.56 * np.cos(t), -0.12 + 0.56 * np.sin(t), 0.42, 0.42), "main") for t in np.arange(7) * 2 * np.pi / 7
    )
    heart = np.concatenate([ellipse(-0.45, -0.3, 0.5, 0.55, 150, 350), ellipse(0.45, -0.3, 0.5, 0.55, 190, 390)])
    return {
        "house": (
            (rectangle(-1.0, -0.3, 0.25, 0.9), "main"),
            (rectangle(0.25, -0.8, 1.0, 0.9), "main"),
            (polygon(-1.0, -0.3, -0.4, -0.85, 0.25, -0.3), "dark"),
            (rectangle(0.42, -0.6, 0.82, -0.25), CREAM),
            (rectangle(-0.8, 0.0, -0.4, 0.4), CREAM),
            (rectangle(-0.2, 0.3, 0.1, 0.9), BROWN),
        ),
        "tree": (
            (rectangle(-0.16, 0.2, 0.16, 1.0), BROWN),
            (ellipse(-0.5, 0.0, 0.5, 0.45), "main"),
            (ellipse(0.5, 0.0, 0.5, 0.45), "main"),
            (ellipse(0.0, -0.45, 0.6, 0.52), "main"),
            (ellipse(0.1, 0.1, 0.25, 0.2), "dark"),
        ),
        "sun": ((ring(1.0, 0.72, 16), "main"), (ellipse(0, 0, 0.6, 0.6), "light")),
        "moon": (
            (np.concatenate([ellipse(0, 0, 0.95, 0.95, 70, 290), ellipse(0.25, 0, 0.62, 0.9, 270, 90)]), "main"),
            (ellipse(-0.55, -0.2, 0.14, 0.14), "dark"),
            (ellipse(-0.45, 0.35, 0.16, 0.16), "dark"),
        ),
        "star": ((ring(1.0, 0.5, 6), "main"), (ring(0.5, 0.25, 6), "light")),
        "boat": (
            (polygon(-1.0, 0.2, 1.0, 0.2, 0.7, 0.85, -0.8, 0.85), "main"),
            (rectangle(-0.6, -0.2, 0.4, 0.2), "light"),
            (rectangle(-0.2, -0.75, 0.1, -0.2), "dark"),
            (rectangle(-0.45, -0.08, -0.25, 0.08), BROWN),
            (rectangle(0.05, -0.08, 0.25, 0.08), BROWN),
        ),
        "fish": (
            (polygon(0.35, 0.0, 1.0, -0.5, 1.0, 0.5), "main"),
            (polygon(-0.3, -0.3, 0.2, -0.75, 0.3, -0.25), "dark"),
            (polygon(-0.2, 0.3, 0.1, 0.7, 0.3, 0.2), "dark"),
            (ellipse(-0.2, 0.0, 0.78, 0.46), "main"),
            (ellipse(-0.6, -0.1, 0.13, 0.13), WHITE),
        ),
        "mushroom": (
            (rectangle(-0.2, 0.0, 0.2, 0.95), TAN),
            (np.concatenate([ellipse(0, 0.05, 1.0, 0.75, 180, 360), polygon(1.0, 0.15, -1.0, 0.15)]), "main"),
            (ellipse(-0.35, -0.3, 0.16, 0.14), WHITE),
            (ellipse(0.4, -0.25, 0.18, 0.15), WHITE),
        ),
        "balloon": (
            (rectangle(-0.16, 0.7, 0.16, 1.0), BROWN),
            (polygon(-0.5, 0.3, 0.5, 0.3, 0.14, 0.72, -0.14, 0.72), "dark"),
            (ellipse(0.0, -0.2, 0.85, 0.78), "main"),
            (ellipse(0.0, -0.2, 0.3, 0.78), "light"),
        ),
        "flower": (
            (rectangle(-0.07, 0.1, 0.07, 1.0), (52, 140, 64)),
            *petals,
            (ellipse(0, -0.12, 0.3, 0.3), (250, 210, 70)),
        ),
        "car": (
            (polygon(-0.5, -0.45, 0.3, -0.45, 0.62, 0.05, -0.75, 0.05), "main"),
            (rectangle(-1.0, 0.0, 1.0, 0.5), "main"),
            (polygon(-0.4, -0.32, 0.2, -0.32, 0.4, 0.02, -0.55, 0.02), CREAM),
            (ellipse(-0.55, 0.5, 0.24, 0.24), (44, 44, 52)),
            (ellipse(0.55, 0.5, 0.24, 0.24), (44, 44, 52)),
        ),
        "heart": ((np.concatenate([heart, polygon(0.0, 0.95)]), "main"),),
    }  # fmt: skip


def _thin_shapes() -> dict[str, Shape]:
    """Silhouettes with parts of a twentieth of their frame: stems, masts, rays, strings."""
    rays: Shape = tuple(
        (_bar(0.5 * np.cos(t), 0.5 * np.sin(t), 0.98 * np.cos(t), 0.98 * np.sin(t), 0.05), "main")
        for t in np.arange(10) * np.pi / 5
    )
    branches: Shape = (
        (_bar(0, 0.35, -0.6, -0.2, 0.05), BROWN),
        (_bar(0, 0.35, 0.6, -0.2, 0.05), BROWN),
        (rectangle(-0.06, -0.2, 0.06, 1.0), BROWN),
    )
    return {
        "sun": (*rays, (ellipse(0, 0, 0.52, 0.52), "main"), (ellipse(0, 0, 0.3, 0.3), "light")),
        "tree": (*branches, (ellipse(-0.6, -0.3, 0.36, 0.3), "main"), (ellipse(0.6, -0.3, 0.36, 0.3), "main"),
                 (ellipse(0, -0.55, 0.42, 0.4), "main")),
        "flower": ((rectangle(-0.045, 0.0, 0.045, 1.0), (52, 140, 64)), (ring(0.6, 0.34, 8) + (0, -0.38), "main"),
                   (ellipse(0, -0.38, 0.2, 0.2), (250, 210, 70))),
        "boat": ((rectangle(-0.045, -1.0, 0.045, 0.4), BROWN), (polygon(0.045, -0.95, 0.6, -0.75, 0.045, -0.55), "light"),
                 (polygon(-0.9, 0.35, 0.9, 0.35, 0.6, 0.85, -0.6, 0.85), "main")),
        "balloon": ((_bar(-0.4, 0.2, -0.14, 0.8, 0.04), BROWN), (_bar(0.4, 0.2, 0.14, 0.8, 0.04), BROWN),
                    (rectangle(-0.2, 0.78, 0.2, 1.0), BROWN), (ellipse(0, -0.32, 0.7, 0.66), "main")),
        "mushroom": ((rectangle(-0.07, 0.0, 0.07, 1.0), TAN), (ellipse(0, -0.1, 0.8, 0.42, 180, 360), "main")),
    }  # fmt: skip


def _bar(x0: float, y0: float, x1: float, y1: float, half: float) -> Polygon:
    """A straight bar from one point to another, `2 * half` wide."""
    along = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0)
    side = half * np.array([-along[1], along[0]])
    ends = np.array([[x0, y0], [x1, y1]])
    return np.stack([ends[0] + side, ends[1] + side, ends[1] - side, ends[0] - side])
