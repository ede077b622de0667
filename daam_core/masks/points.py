"""Points and boxes that tell a segmenter (SAM and its like) what a word's heat and mask are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..opencv import cv2
from .validate import checked_number

Point = tuple[int, int]
"""(x, y) in pixels of the picture, the centre of a pixel."""
_CLEARING = 0.35  # a point clears this part of the side of a square as large as its part of the mask
_LEAST = 0.3  # of the highest heat: weaker places of a word are no sure sign of it


class Box(NamedTuple):
    """A rectangle in pixels: its left and upper edge, its width and height."""

    x: int
    y: int
    width: int
    height: int


def positive_points(heat: Tensor, mask: Tensor, most: int) -> list[Point]:
    """Places that surely belong to the word: hot, inside its mask, away from the mask's edge.

    Each connected part of the mask gets a point before one gets two, the part with most heat first.

    Args:
        heat: float `[H, W]` of the word.
        mask: bool `[H, W]` of the word.
        most: how many points at most.

    Returns:
        Up to `most` points; none where the mask is empty.
    """
    values = np.clip(heat.detach().float().cpu().numpy(), 0, None)
    parts = _parts(mask)
    parts.sort(key=lambda part: -float(values[part].sum()))
    left = [(part, _inner(part) * (values + 1e-9)) for part in parts]
    points: list[Point] = []
    while left and len(points) < most:
        again = []
        for part, score in left[: most - len(points)]:
            y, x = np.unravel_index(int(score.argmax()), score.shape)
            points.append((int(x), int(y)))
            _clear(score, int(x), int(y), _CLEARING * float(np.sqrt(part.sum())))
            if score.max() > 0 and values[part & (score > 0)].max() >= _LEAST * values.max():
                again.append((part, score))
        left = again
    return points


def negative_points(heat: Tensor, mask: Tensor, others: Sequence[Tensor], most: int) -> list[Point]:
    """Places that surely belong to something else: the hottest of each other word, outside the mask, where the word is weak.

    Args:
        heat: float `[H, W]` of the word.
        mask: bool `[H, W]` of the word.
        others: float `[H, W]` of each word that it could be taken for.
        most: how many points at most; the words take turns.
    """
    own = _relative(heat)
    free = ~(mask.detach().cpu().numpy() > 0)
    scores = []
    for other in others:
        values = _relative(other)
        scores.append(np.where(free & (values > own) & (values >= _LEAST), values, 0))
    points: list[Point] = []
    while len(points) < most and any(score.max() > 0 for score in scores):
        for score in scores:
            if len(points) < most and score.max() > 0:
                y, x = np.unravel_index(int(score.argmax()), score.shape)
                points.append((int(x), int(y)))
                _clear(score, int(x), int(y), 0.1 * float(np.hypot(*score.shape)))
    return points


def boxes(mask: Tensor, smallest: float = 0.0) -> list[Box]:
    """A box around each connected part of a mask `[H, W]`, the largest part first; parts below `smallest` per cent of the
    picture are left out. Raises BadArgument where `smallest` is no number from 0 to 100."""
    found = _parts(mask)
    least = checked_number(smallest, "smallest", 0, 100) / 100 * mask.numel()
    found = sorted((part for part in found if part.sum() >= least), key=lambda part: -int(part.sum()))
    return [Box(*(int(v) for v in cv2.boundingRect(part.astype(np.uint8)))) for part in found]


def _parts(mask: Tensor) -> list[NDArray[np.bool_]]:
    count, labels = cv2.connectedComponents((mask.detach().cpu().numpy() > 0).astype(np.uint8), connectivity=8)
    return [labels == i for i in range(1, count)]


def _inner(part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How deep inside a part each of its places lies, 0..1; the picture's border counts as an edge."""
    padded = np.pad(part.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(np.minimum(depth / max(float(depth.max()), 1e-9) * 2, 1), dtype=np.float64)


def _clear(score: NDArray[np.float64], x: int, y: int, radius: float) -> None:
    rows, columns = np.ogrid[: score.shape[0], : score.shape[1]]
    score[(rows - y) ** 2 + (columns - x) ** 2 <= max(radius, 1.0) ** 2] = 0


def _relative(heat: Tensor) -> NDArray[np.float64]:
    values = np.clip(heat.detach().double().cpu().numpy(), 0, None)
    return np.asarray(values / max(float(values.max()), 1e-30))
