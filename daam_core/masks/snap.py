"""Snapping a map to the picture's edges: the guided filter and GrabCut.

A picture is uint8 RGB ``[H, W, 3]``; maps are float32 ``[..., h, w]`` of any size and are brought to the picture's.
Both filters work at a bounded size, so that a large picture costs little more than a small one.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument
from .checks import Array, Picture, checked_maps, checked_picture, checked_positive, checked_share
from .levels import minmax

GUIDED_SIDE = 512
GRABCUT_SIDE = 256
_SEED = 1


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``maps`` ``[..., h, w]`` brought to ``size`` = (height, width) by bicubic interpolation, as Eq. 6 does."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    up = F.interpolate(flat, tuple(size), mode="bicubic", align_corners=False)
    return up.reshape(*maps.shape[:-2], *size)


def working_picture(picture: Picture, side: int) -> Picture:
    """``picture`` with its longer side brought down to ``side`` by area averaging; a smaller one as it is."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def snap_guided(maps: Tensor, picture: Picture, radius: float | None = None, eps: float = 1e-3) -> Tensor:
    """The colour guided filter of He, Sun and Tang (2013): float32 ``[..., H, W]``, in the unit of ``maps``.

    In every window of ``radius`` pixels the map is replaced by its best linear function of the picture's colours, so
    its edges move to the picture's. ``radius`` is by default a cell of the map, which is how far its edges are off;
    ``eps`` is the variance of colour (of 0..1) below which a window counts as flat and is merely averaged. Linear in
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
    reach = max(1, round(radius * max(small.shape[:2]) / max(height, width)))
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


def snap_grabcut(
    maps: Tensor,
    picture: Picture,
    sure: float = 0.75,
    probable: float = 0.35,
    background: float = 0.12,
    rounds: int = 5,
    where: Tensor | None = None,
) -> Tensor:
    """GrabCut (Rother, Kolmogorov and Blake, 2004) seeded by each map: bool ``[..., H, W]``.

    Of the map stretched to 0..1, heat above ``sure`` is foreground, above ``probable`` probably foreground, below
    ``background`` is background, and the rest probably background. ``where``, bool of ``maps``' shape, limits the
    foreground seeds (for example to where a word wins against the others).

    Repeatable: OpenCV's random numbers are seeded in a thread of their own and the caller's are left alone. Where the
    seeds leave GrabCut nothing to learn from, the mask is that of the level ``probable``. Beyond 256 pixels the cut is
    made on a smaller picture and its edge is then fitted to the large one.
    """
    maps, picture = checked_maps(maps), checked_picture(picture)
    for name, value in (("sure", sure), ("probable", probable), ("background", background)):
        checked_share(value, name)
    if not background <= probable <= sure:
        raise BadArgument(f"background <= probable <= sure is needed, got {background}, {probable}, {sure}.")
    if rounds < 1:
        raise BadArgument(f"rounds must be at least 1, got {rounds}.")
    if where is not None and (where.dtype != torch.bool or where.shape != maps.shape):
        raise BadArgument(f"where must be bool {list(maps.shape)} as the maps, got {where.dtype} {list(where.shape)}.")
    small = working_picture(picture, GRABCUT_SIDE)
    size = small.shape[:2]
    heat = minmax(resized(maps, size)).reshape(-1, *size).cpu().numpy()
    inside = None if where is None else resized(where.float(), size).reshape(-1, *size).cpu().numpy() > 0.5
    done = np.empty((len(heat), *picture.shape[:2]), bool)
    for i, one in enumerate(heat):
        allowed = np.ones(size, bool) if inside is None else inside[i]
        seeds = np.full(size, cv2.GC_PR_BGD, np.uint8)
        seeds[(one > probable) & allowed] = cv2.GC_PR_FGD
        seeds[(one > sure) & allowed] = cv2.GC_FGD
        seeds[one < background] = cv2.GC_BGD
        done[i] = enlarged_mask(grabcut(small, seeds, rounds), picture)
    return torch.from_numpy(done).reshape(*maps.shape[:-2], *picture.shape[:2]).to(maps.device)


def grabcut(picture: Picture, seeds: Picture, rounds: int) -> npt.NDArray[np.bool_]:
    """OpenCV's GrabCut from a seed picture of its four labels, repeatable; the seeds' own mask where it cannot work."""
    probable = (seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)
    if probable.all() or not probable.any():
        return probable
    labels = seeds.copy()
    failed: list[BaseException] = []

    def cut() -> None:
        # OpenCV keeps one random generator a thread: in a thread of its own, seeding it disturbs nobody.
        cv2.setRNGSeed(_SEED)
        try:
            models: list[npt.NDArray[Any]] = [np.zeros((1, 65)), np.zeros((1, 65))]
            cv2.grabCut(picture, labels, (0, 0, 1, 1), models[0], models[1], rounds, cv2.GC_INIT_WITH_MASK)
        except cv2.error as error:  # fewer seeds than its five colour clusters
            failed.append(error)

    thread = threading.Thread(target=cut, name="grabcut")
    thread.start()
    thread.join()
    return probable if failed else (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def enlarged_mask(mask: npt.NDArray[np.bool_], picture: Picture) -> npt.NDArray[np.bool_]:
    """A mask made on a smaller picture at the size of ``picture``, its edge fitted to the colours there."""
    height, width = picture.shape[:2]
    if mask.shape == (height, width):
        return mask
    if mask.all() or not mask.any():
        return np.full((height, width), bool(mask.flat[0]))
    scale = max(height, width) / max(mask.shape)
    soft = snap_guided(torch.from_numpy(mask.astype(np.float32)), picture, radius=2 * scale, eps=1e-4)
    result: npt.NDArray[np.bool_] = soft.numpy() > 0.5
    return result


def _unit(picture: Picture) -> Array:
    unit: Array = picture.astype(np.float32) / np.float32(255)
    return unit


def _box(values: Array, reach: int) -> Array:
    side = (2 * reach + 1, 2 * reach + 1)
    return cv2.boxFilter(values, -1, side, borderType=cv2.BORDER_REFLECT_101).astype(np.float32, copy=False)


def _inverse_covariance(guide: Array, reach: int, eps: float) -> tuple[Array, Array]:
    """``(cov + eps I)^-1`` of the colours in every window, ``[3, 3, H, W]``, and their mean ``[H, W, 3]``."""
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
    """Inverses of symmetric matrices ``[3, 3, ...]`` given by their upper triangle, by cofactors: many times as quick as a
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
    """Slope ``[H, W, 3]`` and offset ``[H, W]`` of the best linear function of colour, averaged over the windows."""
    mean_heat = _box(heat, reach)
    cov = _box(guide * heat[..., None], reach) - mean * mean_heat[..., None]
    slope = np.einsum("ijhw,hwj->hwi", inverse, cov)
    offset = mean_heat - np.einsum("hwc,hwc->hw", slope, mean)
    return _box(slope, reach), _box(offset, reach)
