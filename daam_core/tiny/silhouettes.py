"""A judge of one-object pictures without a network: is the drawn object the silhouette that the world has for its noun?

The noun's own polygons are laid over the picture at every place, in many sizes and turns; where they fit best, the picture
is compared with them pixel by pixel. Pixels inside that have another colour (a second window where a door is due), and pixels
outside that have the object's colour (a second tail), are errors. Nothing is learnt, and the segmenter is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadArgument, quoted
from ..opencv import cv2
from .captions import COLOUR_NAMES
from .scenes import COLOURS, SIZE
from .shapes import NOUNS, rgb_of, shape

Floats = npt.NDArray[np.float32]
SIZES = tuple(range(52, 97, 4))
"""Sides of the unit frame that are tried at first, in pixels; scenes of one object have 58 to 90."""
TURNS = (-6.0, 0.0, 6.0)
WRONG = 70.0
"""Distance in RGB (0..255) from which a pixel inside has another colour: twice what the autoencoder blurs."""
LIKE = 44.0
"""Distance in RGB up to which a pixel outside has the object's colour."""
SLACK = 3
"""Pixels around the edge that count for nothing: the autoencoder blurs them."""
LIMIT = 0.2
"""Errors as a part of the object's area from which a picture fails: another shape, not wavering edges. Of scenes drawn by code
and shown by the autoencoder none comes near it (`python -m benchmarks.silhouettes`)."""


@dataclass(frozen=True)
class Silhouette:
    """Where a noun's silhouette fits a picture best, and how badly.

    `centre` (x, y) and `size` in pixels, `turn` in degrees; `error` is the area of all wrong pixels over the object's.
    """

    centre: tuple[float, float]
    size: float
    turn: float
    error: float

    @property
    def fails(self) -> bool:
        """Whether the picture shows something else than the silhouette."""
        return self.error > LIMIT


@dataclass(frozen=True)
class _Template:
    """A drawn noun on its own square: colours float32 `[n, n, 3]`, mask and surroundings float32 `[n, n]` of 0 and 1."""

    colours: Floats
    mask: Floats
    around: Floats
    size: float
    turn: float


def judge_silhouette(picture: npt.NDArray[np.uint8], noun: str, colour: str) -> Silhouette:
    """The best fit of a noun in its colour to a picture of one object, uint8 `[128, 128, 3]`.

    Raises:
        BadArgument: a picture of another shape, a noun or colour that the world has not.

    Example:
        >>> import numpy as np
        >>> from daam_core.tiny.scenes import draw
        >>> scene = draw(np.random.default_rng(0), [("red", "car")])
        >>> judge_silhouette(scene.image, "car", "red").fails, judge_silhouette(scene.image, "fish", "red").fails
        (False, True)
    """
    if picture.shape != (SIZE, SIZE, 3) or picture.dtype != np.uint8:
        raise BadArgument(f"The judge takes uint8 pictures [{SIZE}, {SIZE}, 3]; got {picture.dtype} {list(picture.shape)}.")
    if noun not in NOUNS or colour not in COLOUR_NAMES:
        raise BadArgument(f"The world has no {quoted(colour)} {quoted(noun)}.")
    seen = picture.astype(np.float32)
    like = _alike(seen, colour)
    coarse = min((_match(seen, like, _template(noun, colour, size, turn)) for size in SIZES for turn in TURNS), key=_badness)
    near = [
        _template(noun, colour, coarse[1].size + step, coarse[1].turn + turn)
        for step in (-2, 0, 2)
        for turn in (-3.0, 0.0, 3.0)
    ]
    _, best, x, y = min((_match(seen, like, one) for one in near), key=_badness)
    return Silhouette((x, y), best.size, best.turn, _error(seen, like, best, x, y))


def _badness(match: tuple[float, _Template, float, float]) -> float:
    return match[0]


def _template(noun: str, colour: str, size: float, turn: float) -> _Template:
    side = int(np.ceil(size * 1.1)) + 2 * SLACK
    scale = 4
    canvas = np.zeros((side * scale, side * scale, 3), np.uint8)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    a = np.deg2rad(turn)
    frame = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) * (size / 2)
    for points, fill in shape(noun):
        fixed = np.round((points @ frame.T + side / 2) * scale).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], rgb_of(fill, COLOURS[colour]))
        cv2.fillPoly(mask, [fixed], 255)
    drawn = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = (cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
    wide = cv2.dilate(inside, np.ones((2 * SLACK + 1,) * 2, np.uint8))
    return _Template(drawn, inside.astype(np.float32), (1 - wide).astype(np.float32), size, turn)


def _alike(seen: Floats, colour: str) -> Floats:
    """1 where a pixel has the object's main or dark colour, else 0."""
    fills = [np.array(rgb_of(tone, COLOURS[colour]), np.float32) for tone in ("main", "dark")]
    nearest = np.min([np.linalg.norm(seen - fill, axis=2) for fill in fills], axis=0)
    return np.asarray(nearest < LIKE, dtype=np.float32)


def _match(seen: Floats, like: Floats, one: _Template) -> tuple[float, _Template, float, float]:
    """The least badness of a template over all places, and its centre there."""
    pad = one.mask.shape[0] // 3  # an object may touch the border, its square may pass it
    picture = cv2.copyMakeBorder(seen, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    alike = cv2.copyMakeBorder(like, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.matchTemplate(picture, one.colours, cv2.TM_SQDIFF, mask=np.repeat(one.mask[..., None], 3, 2))
    outside = cv2.matchTemplate(alike, one.around, cv2.TM_CCORR)
    total = np.sum(like)
    area = float(one.mask.sum())
    # What has the object's colour and lies under no part of the template counts wherever it is.
    beside = total - cv2.matchTemplate(alike, np.ones_like(one.around), cv2.TM_CCORR)
    badness = inside / (area * WRONG**2) + (outside + beside) / area
    y, x = np.unravel_index(int(badness.argmin()), badness.shape)
    half = one.mask.shape[0] / 2
    return float(badness[y, x]), one, float(x - pad + half), float(y - pad + half)


def _error(seen: Floats, like: Floats, one: _Template, x: float, y: float) -> float:
    """Wrong pixels inside the shrunk mask and outside the grown one, as a part of the mask's area."""
    side = one.mask.shape[0]
    left, top = round(x - side / 2), round(y - side / 2)
    drawn = np.zeros((SIZE + 2 * side, SIZE + 2 * side, 3), np.float32)
    mask = np.zeros(drawn.shape[:2], np.uint8)
    drawn[top + side : top + 2 * side, left + side : left + 2 * side] = one.colours
    mask[top + side : top + 2 * side, left + side : left + 2 * side] = one.mask
    drawn, mask = drawn[side : side + SIZE, side : side + SIZE], mask[side : side + SIZE, side : side + SIZE]
    kernel = np.ones((3, 3), np.uint8)
    wide = cv2.dilate(mask, kernel, iterations=SLACK) > 0
    # A pixel is right inside where any template pixel beside it has its colour: inner edges are blurred as well.
    distance = np.full(mask.shape, np.inf, np.float32)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            moved = np.roll(drawn, (dy, dx), (0, 1))
            distance = np.minimum(distance, np.linalg.norm(seen - moved, axis=2))
    core = cv2.erode(mask, kernel) > 0
    wrong = _solid(core & (distance > WRONG)) | _solid(~wide & (like > 0))
    return float(wrong.sum()) / max(1.0, float(mask.sum()))


def _solid(found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Less single pixels and lines of one pixel."""
    return np.asarray(cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0)
