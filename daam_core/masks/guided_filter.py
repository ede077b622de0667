"""The guided filter: a map's edges move to the picture's, at a bounded working size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..opencv import cv2
from .resize import resized, working_picture
from .validate import Array, Picture, checked_maps, checked_picture, checked_positive

GUIDED_SIDE = 512


def snap_guided(maps: Tensor, picture: Picture, radius: float | None = None, eps: float = 1e-3) -> Tensor:
    """The colour guided filter of He, Sun and Tang (2013): float32 `[..., H, W]`, in the unit of `maps`.

    In every window of `radius` pixels the map is replaced by its best linear function of the picture's colours, so
    its edges move to the picture's. `radius` is by default a cell of the map, which is how far its edges are off;
    `eps` is the variance of colour (of 0..1) below which a window counts as flat and is merely averaged. Linear in
    the map: a constant map stays.
    """
    maps, picture = checked_maps(maps), checked_picture(picture)
    eps = checked_positive(eps, "eps")
    height, width = picture.shape[:2]
    if radius is None:
        radius = max(2.0, height / maps.shape[-2], width / maps.shape[-1])
    radius = checked_positive(radius, "radius")
    small = working_picture(picture, GUIDED_SIDE)
    heat = resized(maps, small.shape[:2]).reshape(-1, *small.shape[:2]).cpu().numpy()
    # A window beyond the picture sees no more of it, and OpenCV would mirror the picture that far.
    reach = min(max(1, round(radius * max(small.shape[:2]) / max(height, width))), max(small.shape[:2]))
    guide, full = _unit(small), _unit(picture)
    inverse, mean = _inverse_covariance(guide, reach, eps)
    done = np.empty((len(heat), height, width), np.float32)
    for i, one in enumerate(heat):
        slope, offset = _linear_fit(guide, mean, inverse, one, reach)
        if small.shape != picture.shape:  # the coefficients are smooth: only they are enlarged, not the map
            slope = cv2.resize(slope, (width, height), interpolation=cv2.INTER_LINEAR)
            offset = cv2.resize(offset, (width, height), interpolation=cv2.INTER_LINEAR)
        done[i] = np.einsum("hwc,hwc->hw", slope.reshape(full.shape), full) + offset.reshape(height, width)
    return torch.from_numpy(done).reshape(*maps.shape[:-2], height, width).to(maps.device)


def _unit(picture: Picture) -> Array:
    unit: Array = picture.astype(np.float32) / np.float32(255)
    return unit


def _box(values: Array, reach: int) -> Array:
    side = (2 * reach + 1, 2 * reach + 1)
    return cv2.boxFilter(values, -1, side, borderType=cv2.BORDER_REFLECT_101).astype(np.float32, copy=False)


def _inverse_covariance(guide: Array, reach: int, eps: float) -> tuple[Array, Array]:
    """`(cov + eps I)^-1` of the colours in every window, `[3, 3, H, W]`, and their mean `[H, W, 3]`."""
    mean = _box(guide, reach)
    planes = [np.ascontiguousarray(guide[..., i]) for i in range(3)]
    cov = np.empty((3, 3, *guide.shape[:2]))
    for i in range(3):
        for j in range(i, 3):
            # In float64 from here on: a flat window leaves eps alone on the diagonal.
            cov[i, j] = _box(planes[i] * planes[j], reach) - mean[..., i] * mean[..., j]
        cov[i, i] += eps
    return _inverted(cov).astype(np.float32), mean


def _inverted(upper: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverses of symmetric matrices `[3, 3, ...]` given by their upper triangle, by cofactors: many times as quick as a
    solver for each of them."""
    (a, b, c), (d, e), f = upper[0], upper[1, 1:], upper[2, 2]
    cofactors = {(0, 0): d * f - e * e, (0, 1): c * e - b * f, (0, 2): b * e - c * d}
    cofactors |= {(1, 1): a * f - c * c, (1, 2): b * c - a * e, (2, 2): a * d - b * b}
    factor = 1 / (a * cofactors[0, 0] + b * cofactors[0, 1] + c * cofactors[0, 2])
    inverse = np.empty_like(upper)
    for (i, j), cofactor in cofactors.items():
        inverse[i, j] = inverse[j, i] = cofactor * factor
    return inverse


def _linear_fit(guide: Array, mean: Array, inverse: Array, heat: Array, reach: int) -> tuple[Array, Array]:
    """Slope `[H, W, 3]` and offset `[H, W]` of the best linear function of colour, averaged over the windows."""
    mean_heat = _box(heat, reach)
    cov = _box(guide * heat[..., None], reach) - mean * mean_heat[..., None]
    slope = np.einsum("ijhw,hwj->hwi", inverse, cov)
    offset = mean_heat - np.einsum("hwc,hwc->hw", slope, mean)
    return _box(slope, reach), _box(offset, reach)
