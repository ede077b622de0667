"""How likely a colour is in a part of the picture: smoothed histograms in Lab, without any random start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..opencv import cv2
from .validate import Array, Picture

BINS = 32
# Shadow and light move a surface's lightness far more than its hue: lightness counts half (and Lab's 0..255 is 0..100).
_LIGHTNESS = 0.5


def lab(picture: Picture) -> Array:
    """CIE Lab of an RGB picture, float32 `[H, W, 3]` in OpenCV's 0..255 units, lightness halved."""
    values = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    values[..., 0] *= _LIGHTNESS
    return values


def cells(colours: Array) -> npt.NDArray[np.int64]:
    """The histogram cell of each pixel, int64 `[H, W]` in 0..BINS^3 - 1."""
    at = np.clip(colours * (BINS / 256), 0, BINS - 1).astype(np.int64)
    joint: npt.NDArray[np.int64] = (at[..., 0] * BINS + at[..., 1]) * BINS + at[..., 2]
    return joint


def density(cell: npt.NDArray[np.int64], weight: Array, spread: float) -> Array:
    """Share of `weight` that lies in each pixel's own cell, float32 `[H, W]`; all zero when there is no weight.

    The histogram is blurred by a Gaussian of `spread` Lab units first.
    """
    sums = np.bincount(cell.ravel(), weight.ravel(), BINS**3).reshape(BINS, BINS, BINS).astype(np.float32)
    sigma = float(np.clip(spread * BINS / 256, 0.4, 2.5))
    kernel = cv2.getGaussianKernel(2 * int(np.ceil(2 * sigma)) + 1, sigma, cv2.CV_32F).ravel()
    for axis in range(3):
        sums = _blurred(sums, kernel, axis)
    found: Array = (sums / max(float(sums.sum()), 1e-9)).ravel()[cell]
    return found


def _blurred(values: Array, kernel: Array, axis: int) -> Array:
    reach = len(kernel) // 2
    done: Array = kernel[reach] * values
    lead = (slice(None),) * axis
    for i in range(1, reach + 1):
        upper, lower = (*lead, slice(i, None)), (*lead, slice(None, -i))
        done[lower] += kernel[reach + i] * values[upper]
        done[upper] += kernel[reach + i] * values[lower]
    return done
