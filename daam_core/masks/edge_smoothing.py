"""Edge-aware smoothing: values spread freely over an even surface of the picture and stop at its edges.

The fast global smoother of Min et al. (2014): the minimiser of `sum (x - target)^2 + lambda sum w_pq (x_p - x_q)^2`,
approximated by exact one-dimensional solutions along rows and columns in turn. Over a flat region it comes to the mean
of the region, so a 16x16 heat map becomes one vote a region without any region being cut out first; where the picture
has gradients or noise the votes stay local instead of failing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..opencv import cv2
from .validate import Array

# Links are never cut altogether: a value may seep through an edge when nothing speaks against it.
_WEAKEST_LINK = 1e-4
_ROUNDS = 3


@dataclass(frozen=True)
class Links:
    """How alike neighbours are, 0..1: `right` `[H, W-1]` and `below` `[H-1, W]`."""

    right: Array
    below: Array


def links(colours: Array, tolerance: float) -> Links:
    """Gaussian likeness of neighbouring `colours` `[H, W, C]`; `tolerance` is its standard deviation."""

    def alike(first: Array, second: Array) -> Array:
        far = ((first - second) ** 2).sum(-1)
        likeness: Array = (np.exp(-far / (2 * tolerance**2)) + _WEAKEST_LINK).astype(np.float32)
        return likeness

    return Links(alike(colours[:, 1:], colours[:, :-1]), alike(colours[1:], colours[:-1]))


def surfaces(between: Links, least: float = 0.9) -> npt.NDArray[np.int32]:
    """The number of the even surface of each pixel, int32 `[H, W]` from 1: neighbours joined by links of at least `least`."""
    height, width = between.right.shape[0], between.below.shape[1]
    # Pixels and the links between them on one canvas of twice the size.
    canvas = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    canvas[::2, ::2] = 1
    canvas[::2, 1::2] = between.right >= least
    canvas[1::2, ::2] = between.below >= least
    found: npt.NDArray[np.int32] = cv2.connectedComponents(canvas, connectivity=4)[1][::2, ::2]
    return found


def roughness(colours: Array) -> float:
    """Median difference of neighbouring pixels (summed over channels): 0 on flat art, the noise level on photographs."""
    steps = [np.abs(np.diff(colours, axis=axis)).sum(-1).ravel() for axis in (0, 1)]
    both = np.concatenate(steps)
    return float(np.median(both)) if both.size else 0.0


def smoothed(target: Array, between: Links, strength: float) -> Array:
    """`target` `[K, H, W]` smoothed along `between`; `strength` is the lambda of the formula."""
    values = target.astype(np.float32)
    across = np.ascontiguousarray(between.right.T)
    for round_ in range(1, _ROUNDS + 1):
        # The schedule of the paper: each round a quarter of the one before, so that no streaks are left.
        weight = np.float32(1.5 * strength * 4 ** (_ROUNDS - round_) / (4**_ROUNDS - 1))
        values = _solved(np.ascontiguousarray(values.transpose(0, 2, 1)), across * weight).transpose(0, 2, 1)
        values = _solved(np.ascontiguousarray(values), between.below * weight)
    return np.ascontiguousarray(values)


def _solved(right_hand: Array, weight: Array) -> Array:
    """`(I + L) x = right_hand` along axis 1 of `[K, n, m]`, L the Laplacian of chain weights `[n-1, m]` (Thomas)."""
    n, m = right_hand.shape[1:]
    diagonal = np.ones((n, m), np.float32)
    diagonal[1:] += weight
    diagonal[:-1] += weight
    x = right_hand.copy()
    carried: npt.NDArray[np.float32] = np.empty_like(weight)
    inverse = 1 / diagonal[0]
    x[:, 0] *= inverse
    for i in range(1, n):
        w = weight[i - 1]
        carried[i - 1] = w * inverse
        inverse = 1 / (diagonal[i] - w * carried[i - 1])
        x[:, i] = (x[:, i] + w * x[:, i - 1]) * inverse
    for i in range(n - 2, -1, -1):
        x[:, i] += carried[i] * x[:, i + 1]
    return x
