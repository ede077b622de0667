"""The picture-book world: scenes of 128x128 (or 256x256) drawn by code, with caption, exact masks and grammar tree.

A scene is a pure function of `(seed, index)`: the same numbers give the same picture on every machine. Objects are
polygons (see `shapes`) filled at 512x512 and averaged down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import DaamLensError, quoted
from ..opencv import cv2
from .captions import BACKGROUNDS, RELATIONS, Background, Caption, Node, Relation, Thing, caption, random_pairs, random_wording
from .shapes import NOUNS, RGB, ellipse, rgb_of, shape

SIZE = 128
SUPERSAMPLING = 4
Style = Literal["flat", "shaded"]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

COLOURS: dict[str, RGB] = {
    "red": (222, 32, 38),
    "orange": (255, 140, 0),
    "yellow": (255, 222, 30),
    "green": (30, 160, 50),
    "blue": (30, 90, 225),
    "purple": (135, 40, 175),
    "pink": (255, 120, 185),
}
# Sky and ground; plain paper has no ground.
_SKY: dict[Background, RGB] = {
    "plain": (245, 240, 225),
    "night": (24, 28, 68),
    "grass": (190, 228, 250),
    "snow": (186, 198, 220),
    "sea": (226, 240, 248),
}
_GROUND: dict[Background, RGB] = {
    "night": (44, 50, 104),
    "grass": (150, 205, 95),
    "snow": (250, 252, 255),
    "sea": (70, 175, 200),
}


@dataclass(frozen=True)
class SceneObject:
    """One drawn object.

    `centre` is (x, y) and `size` the side of its unit frame, both in pixels of the picture; `mask` is bool [128, 128]
    (or [side, side]), true where at least half of a pixel shows the object.
    """

    noun: str
    colour: str
    centre: tuple[float, float]
    size: float
    mask: Mask


@dataclass(frozen=True)
class Scene:
    """A picture (`image`, uint8 [side, side, 3], RGB) and everything that is true about it.

    `objects` are in the order in which the caption names them.
    """

    image: Image
    caption: str
    tree: tuple[Node, ...]
    nouns: tuple[int, ...]
    objects: tuple[SceneObject, ...]
    background: Background
    relation: Relation


@dataclass(frozen=True)
class _Placed:
    """Where and how one object is drawn."""

    pair: tuple[str, str]
    centre: tuple[float, float]
    size: float
    turn: float
    main: RGB


def size_name(size: float, alone: bool) -> str | None:
    """`"small"`, `"big"` or `None` for an object of `size` pixels."""
    small, big = (66.0, 82.0) if alone else (50.0, 58.0)
    return "small" if size < small else "big" if size > big else None


def draw(
    rng: np.random.Generator,
    pairs: list[tuple[str, str]],
    background: Background = "plain",
    relation: Relation = "and",
    style: Style = "flat",
    wording: Literal["full", "random"] = "full",
    side: int = SIZE,
) -> Scene:
    """Draw one or two (colour, noun) pairs, placed at random as `relation` says.

    `style="shaded"` draws the very same geometry with light, shadow, gradients and noise; the masks are the same.
    `wording="full"` names every colour and the place; `"random"` leaves some of it out, as training captions do.
    `side` is the picture's in pixels, 64, 128, 256 or 512: the same scene, drawn larger or smaller.

    Raises:
        DaamLensError: the world has no such object, or no picture of that size.
    """
    _check(pairs, side)
    placed = _place(rng, pairs, relation)
    canvas = _draw_background(rng, background)
    masks: list[Image] = []
    for one in placed:
        mask = np.zeros(canvas.shape[:2], np.uint8)
        for points, fill in _polygons(one):
            _fill(canvas, points, fill)
            _fill(mask, points, 255)
        masks = [np.where(mask > 0, 0, m).astype(np.uint8) for m in masks] + [mask]
    sizes = [size_name(one.size, len(placed) == 1) for one in placed]
    described = (
        random_wording(rng, pairs, sizes, relation, background)
        if wording == "random"
        else caption([Thing(noun, colour) for colour, noun in pairs], relation, background)
    )
    if style == "shaded":
        canvas = _shade(np.random.default_rng(rng.integers(0, 2**63)), canvas, masks)
    objects = tuple(_object(one, _shrink(mask, side) > 127, side / SIZE) for one, mask in zip(placed, masks, strict=True))
    return _scene(_shrink(canvas, side), described, objects, background, relation)


def scene_at(seed: int, index: int, two: float = 0.4, held_out: bool = False, style: Style = "flat", side: int = SIZE) -> Scene:
    """Scene `index` of the endless world `seed`.

    `two` is the share of two-object scenes; `held_out` makes the first object an unreal pair, which the training
    world never shows. The same numbers with `style="shaded"` give the same scene in another technique, with another
    `side` (see `draw`) in another size.
    """
    rng = np.random.default_rng([seed, index])
    pairs = random_pairs(rng, 2 if rng.random() < two else 1, held_out)
    background = BACKGROUNDS[int(rng.choice(5, p=[0.36, 0.16, 0.16, 0.16, 0.16]))]
    relation = RELATIONS[int(rng.choice(4, p=[0.55, 0.15, 0.15, 0.15]))]
    return draw(rng, pairs, background, relation, style, "random", side)


def mask_picture(scene: Scene) -> Image:
    """The exact masks as a picture, uint8 [side, side, 3]: each object in the RGB of its colour's name, on dark grey."""
    picture = np.full(scene.image.shape, 40, np.uint8)
    for one in scene.objects:
        picture[one.mask] = COLOURS[one.colour]
    return picture


def _check(pairs: list[tuple[str, str]], side: int) -> None:
    if side not in (64, 128, 256, 512):
        raise DaamLensError(f"Scenes are drawn with a side of 64, 128, 256 or 512 pixels, not {side}.")
    if len(pairs) not in (1, 2):
        raise DaamLensError(f"A scene shows one or two objects; {len(pairs)} were asked for.")
    for colour, noun in pairs:
        if colour not in COLOURS:
            raise DaamLensError(f"The world has no colour {quoted(colour)}; it has {', '.join(COLOURS)}.")
        if noun not in NOUNS:
            raise DaamLensError(f"The world has no {quoted(noun)}; it has {', '.join(NOUNS)}.")


def _scene(image: Image, text: Caption, objects: tuple[SceneObject, ...], background: Background, relation: Relation) -> Scene:
    return Scene(image, text.text, text.tree, text.nouns, objects, background, relation)


def _object(one: _Placed, mask: Mask, scale: float) -> SceneObject:
    x, y = one.centre
    return SceneObject(one.pair[1], one.pair[0], (x * scale, y * scale), one.size * scale, mask)


def _shrink(canvas: Image, side: int) -> Image:
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _fill(canvas: Image, points: npt.NDArray[np.float64], fill: RGB | int) -> None:
    fixed = np.round(points * SUPERSAMPLING * 16).astype(np.int32)  # 4 fractional bits: edges move smoothly
    cv2.fillPoly(canvas, [fixed], fill, cv2.LINE_8, 4)


def _fits(relation: Relation, sizes: list[float], centres: list[tuple[float, float]]) -> bool:
    """Whether two objects stand apart, and as the relation says."""
    dx, dy = (b - a for a, b in zip(*centres, strict=True))
    gap = 0.49 * sum(sizes)
    if relation == "above":
        return dy >= gap
    if relation == "below":
        return -dy >= gap
    if relation == "next to":
        return abs(dx) >= gap and abs(dy) < 0.6 * gap
    return max(abs(dx), abs(dy)) >= gap


def _place(rng: np.random.Generator, pairs: list[tuple[str, str]], relation: Relation) -> list[_Placed]:
    while True:  # some 4 tries on average; two frames of 62 pixels always fit somewhere
        sizes = [float(s) for s in (rng.uniform(58, 90, 1) if len(pairs) == 1 else rng.uniform(46, 62, 2))]
        centres = [
            (float(rng.uniform(s / 2 + 2, SIZE - s / 2 - 2)), float(rng.uniform(s / 2 + 2, SIZE - s / 2 - 2))) for s in sizes
        ]
        if len(pairs) == 1 or _fits(relation, sizes, centres):
            break
    placed: list[_Placed] = []
    for pair, size, centre in zip(pairs, sizes, centres, strict=True):
        r, g, b = (int(v) for v in np.clip(np.array(COLOURS[pair[0]]) + rng.integers(-8, 9, 3), 0, 255))
        rng.random()  # drew whether it is mirrored, once; every scene stays where it was
        placed.append(_Placed(pair, centre, size, float(rng.uniform(-7, 7)), (r, g, b)))
    return placed


def _polygons(one: _Placed) -> list[tuple[npt.NDArray[np.float64], RGB]]:
    a = np.deg2rad(one.turn)
    frame = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * (one.size / 2)
    return [(points @ frame.T + one.centre, rgb_of(fill, one.main)) for points, fill in shape(one.pair[1])]


def _draw_background(rng: np.random.Generator, kind: Background) -> Image:
    canvas = np.empty((SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING, 3), np.uint8)
    canvas[:] = _SKY[kind]
    horizon = float(rng.uniform(0.64, 0.8)) * SIZE
    phase = float(rng.uniform(0, 2 * np.pi))
    dots = rng.uniform(0, SIZE, (6, 2))
    if kind in ("night", "snow"):
        light: RGB = (236, 232, 206) if kind == "night" else (250, 252, 255)
        for x, y in dots:
            _fill(canvas, ellipse(x, y * 0.6, 2.2, 2.2, points=16), light)
    if kind in _GROUND:
        x = np.linspace(0, SIZE, 65)
        height, waves = (2.5, 5.0) if kind == "sea" else (4.0, 1.2)
        top = horizon + height * np.sin(2 * np.pi * waves * x / SIZE + phase)
        ground = np.concatenate([np.stack([x, top], axis=1), [[SIZE, SIZE], [0, SIZE]]])
        _fill(canvas, ground, _GROUND[kind])
    return canvas


def _shade(rng: np.random.Generator, canvas: Image, masks: list[Image]) -> Image:
    """Light from the upper left, round objects, soft shadows, a graded background and grain; no edge moves."""
    n = canvas.shape[0]
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    light = 1.1 - 0.24 * y + 0.08 * np.sin(3.0 * x + float(rng.uniform(0, 6.0)))
    for mask in masks:
        cast = cv2.GaussianBlur(np.roll(mask, (n // 32, n // 40), axis=(0, 1)), (0, 0), n / 48)
        light *= 1 - 0.34 * cast.astype(np.float32) / 255
    for mask in masks:
        depth = np.minimum(cv2.distanceTransform(mask, cv2.DIST_L2, 5) / (0.07 * n), 1.0)
        height = cv2.GaussianBlur(np.sqrt(depth), (0, 0), n / 100)
        slope = (np.gradient(height, axis=0) + np.gradient(height, axis=1)) * (0.035 * n)
        inside = np.clip(0.92 + slope, 0.55, 1.3)
        light = np.where(mask > 0, inside, light)
    grain = cv2.resize(rng.normal(0, 1, (SIZE // 8, SIZE // 8)).astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
    fine = np.repeat(np.repeat(rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32), SUPERSAMPLING, 0), SUPERSAMPLING, 1)
    shaded = canvas.astype(np.float32) * light[..., None] + (3.5 * grain + 6.0 * fine)[..., None]
    return np.clip(np.round(shaded), 0, 255).astype(np.uint8)
