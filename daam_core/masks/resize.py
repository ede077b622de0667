"""Bringing maps and pictures to the size a filter works at."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..opencv import cv2
from .validate import Picture, checked_maps, checked_size


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`maps` `[..., h, w]` brought to `size` = (height, width) by bicubic interpolation, as Eq. 6 does. Raises BadArgument."""
    maps, size = checked_maps(maps), checked_size(size)
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.numel() == 0:
        return maps.new_empty((*maps.shape[:-2], *size))
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    up = F.interpolate(flat, tuple(size), mode="bicubic", align_corners=False)
    return up.reshape(*maps.shape[:-2], *size)


def working_picture(picture: Picture, side: int) -> Picture:
    """`picture` with its longer side brought down to `side` by area averaging; a smaller one as it is."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
