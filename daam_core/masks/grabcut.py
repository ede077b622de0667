"""GrabCut seeded by a map: which part of the picture has the colours of the word's object."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import BadArgument, quoted
from ..opencv import cv2
from . import color_model as colours
from . import edge_smoothing as smoother
from .guided_filter import snap_guided
from .resize import resized, working_picture
from .threshold import minmax
from .validate import Array, Mask, Picture, checked_maps, checked_picture, checked_share, checked_whole

GRABCUT_SIDE = 256
_ROUNDS = 5
_SEED = 1
_WARM = 0.3
"""Share of the word's peak from which a place is surely warm."""
_FOREIGN = 2e-3
"""Share of the ground's pixels in a colour, below which the ground does not have it."""
_OUT_OF_SHADOW = (1.15, 1.35)
"""How much brighter a colour may be outside of an object's shadow."""
_SQUARE = np.ones((3, 3), np.uint8)


def snap_grabcut(
    maps: Tensor,
    picture: Picture,
    sure: float = 0.75,
    probable: float = 0.35,
    background: float = 0.12,
    rounds: int = _ROUNDS,
    where: Tensor | None = None,
) -> Tensor:
    """GrabCut (Rother, Kolmogorov and Blake, 2004) seeded by each map: bool `[..., H, W]`.

    Of the map stretched to 0..1, heat above `sure` is foreground, above `probable` probably foreground, below
    `background` is background, and the rest probably background. `where`, bool of `maps`' shape, limits the
    foreground seeds (for example to where a word wins against the others).

    Repeatable: OpenCV's random numbers are seeded in a thread of their own and the caller's are left alone. Where the
    seeds leave GrabCut nothing to learn from, the mask is that of the level `probable`. Beyond 256 pixels the cut is
    made on a smaller picture and its edge is then fitted to the large one.
    """
    maps, picture = checked_maps(maps), checked_picture(picture)
    for name, value in (("sure", sure), ("probable", probable), ("background", background)):
        checked_share(value, name)
    if not background <= probable <= sure:
        raise BadArgument(f"background <= probable <= sure is needed, got {background}, {probable}, {sure}.")
    rounds = checked_whole(rounds, "rounds", 1, 1000)
    if where is not None and (not isinstance(where, Tensor) or where.dtype != torch.bool or where.shape != maps.shape):
        raise BadArgument(f"where must be bool {list(maps.shape)} as the maps, got {quoted(where, 60)}.")
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


def grabcut(picture: Picture, seeds: Picture, rounds: int) -> Mask:
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


def grabcut_around(mask: Mask, others: Mask, heat: Array, picture: Picture) -> Mask:
    """GrabCut started from a mask `[H, W]` that is right but for its edge: bool `[H, W]`.

    `others` is what belongs to other words, bool `[H, W]`, and `heat` the word's own, float32 `[H, W]`, 0..1. Nothing further
    from the mask than a cell of the map (a 16th of the picture) becomes object, and of the mask itself only what is warm and of
    a colour that the ground does not have is taken for granted (see `certain`): the rest may be ground. Other objects are
    painted over with the ground next to them, or one of the same colour would make ground of both, and the cut is made on what
    is near the mask then. The mask itself where GrabCut takes it all away.
    """
    if not mask.any():
        return mask
    cell = max(1, round(max(mask.shape) / 16))
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_C, 3)
    seeds = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[away > cell] = cv2.GC_BGD
    ground = ~(_grown(mask) | _grown(others))
    seeds[certain(mask, ground, heat, picture)] = cv2.GC_FGD
    part = (slice(None), slice(None))
    if others.any():
        hidden = _grown(others) & ~mask
        seeds[hidden] = cv2.GC_BGD
        picture = painted_over(picture, hidden, ground)
        part = _around(mask, 2 * cell)
    cut = np.zeros_like(mask)
    cut[part] = grabcut(np.ascontiguousarray(picture[part]), np.ascontiguousarray(seeds[part]), _ROUNDS)
    return cut if cut.any() else mask


def certain(mask: Mask, ground: Mask, heat: Array, picture: Picture) -> Mask:
    """What of a mask `[H, W]` no cut may take away: bool `[H, W]`, warm (`_WARM` of the peak), and of no colour of `ground`.

    GrabCut learns the ground's colours from what it cuts off, too, and so may give a whole colour of an object of many to
    the ground. Here they are learnt once, from what is outside all objects; what would be one of them in brighter light is
    ground in the object's shadow. Colours of the edge are mixed of both sides: its pixels are never certain. Without any
    ground nothing is.
    """
    if not ground.any():
        return np.zeros_like(mask)
    lab = colours.lab(picture)
    lit = [lab, *(colours.lab(cv2.convertScaleAbs(picture, alpha=light)) for light in _OUT_OF_SHADOW)]
    cells = np.stack([colours.cells(one) for one in lit])
    learnt = np.zeros(cells.shape, np.float32)
    learnt[0] = ground
    shares = colours.density(cells, learnt, 5.0 + 0.5 * smoother.roughness(lab))
    share = shares.reshape(cells.shape).max(0)
    foreign = (mask & (heat >= _WARM) & (share < _FOREIGN)).astype(np.uint8)
    inner: Mask = cv2.erode(foreign, _SQUARE, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    return inner


def painted_over(picture: Picture, hidden: Mask, ground: Mask) -> Picture:
    """`picture` with the pixels of `hidden` replaced by the nearest ones of `ground`; as it is where there is no ground."""
    if not hidden.any() or not ground.any():
        return picture
    kind = cv2.DIST_LABEL_PIXEL
    _, nearest = cv2.distanceTransformWithLabels((~ground).astype(np.uint8), cv2.DIST_L2, 3, labelType=kind)
    colour = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colour[nearest[ground]] = picture[ground]
    done = picture.copy()
    done[hidden] = colour[nearest[hidden]]
    return done


def _grown(mask: Mask) -> Mask:
    """A mask and the pixels next to it."""
    grown: Mask = cv2.dilate(mask.astype(np.uint8), _SQUARE) > 0
    return grown


def _around(mask: Mask, margin: int) -> tuple[slice, slice]:
    """The box of a mask with a margin, as slices of rows and columns."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    return slice(top, int(rows[-1]) + 1 + margin), slice(left, int(columns[-1]) + 1 + margin)


def enlarged_mask(mask: Mask, picture: Picture) -> Mask:
    """A mask made on a smaller picture at the size of `picture`, its edge fitted to the colours there."""
    height, width = picture.shape[:2]
    if mask.shape == (height, width):
        return mask
    if mask.all() or not mask.any():
        return np.full((height, width), bool(mask.flat[0]))
    scale = max(height, width) / max(mask.shape)
    soft = snap_guided(torch.from_numpy(mask.astype(np.float32)), picture, radius=2 * scale, eps=1e-4)
    result: Mask = soft.numpy() > 0.5
    return result
