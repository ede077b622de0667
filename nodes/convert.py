"""What the nodes hand to each other, and ComfyUI's pictures and masks as the core wants them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from comfy_api.latest import io
from numpy.typing import NDArray
from torch import Tensor

from ..daam_core.maps.heatmaps import HeatMaps

Picture = NDArray[np.uint8]
MapsHandle = tuple[HeatMaps, ...]
"""One recording: the maps of each picture of a batch."""
MAPS = io.Custom("DAAM_LENS_MAPS")
GROUND = 34
"""Grey of the ground that heat is painted on where no picture is known."""


def pictures_of(image: Tensor) -> list[Picture]:
    """IMAGE `[pictures, H, W, 3 or 4]` 0..1 -> uint8 `[H, W, 3]` each."""
    values = (image[..., :3].detach().float().cpu().nan_to_num().clamp(0, 1) * 255).round()
    return [one.numpy().astype(np.uint8) for one in values]


def image_of(pictures: Sequence[Picture]) -> Tensor:
    """uint8 `[H, W, 3]` each -> IMAGE `[pictures, H, W, 3]` float32 0..1; smaller ones stand in the middle of the largest."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    out = torch.full((len(pictures), height, width, 3), GROUND / 255)
    for i, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        top, left = (height - h) // 2, (width - w) // 2
        out[i, top : top + h, left : left + w] = torch.from_numpy(picture.copy()).float() / 255
    return out


def with_pictures(handle: MapsHandle, image: Tensor | None) -> MapsHandle:
    """The same maps, knowing the finished pictures (and their size); a shorter batch is repeated."""
    if image is None:
        return handle
    pictures = pictures_of(image)
    return tuple(
        dataclasses.replace(maps, picture=picture, size=(picture.shape[0], picture.shape[1]))
        for maps, picture in zip(handle, _as_many(pictures, len(handle)), strict=True)
    )


def ground(maps: HeatMaps) -> Picture:
    """The picture itself, or an even ground of its size."""
    return np.full((*maps.size, 3), GROUND, np.uint8) if maps.picture is None else maps.picture


def mask_batch(masks: Sequence[Tensor]) -> Tensor:
    """Masks `[H, W]`, bool or 0..1 -> MASK `[masks, H, W]` float32 of the first one's size."""
    size = tuple(masks[0].shape)
    return torch.stack([mask.float() if tuple(mask.shape) == size else resized(mask.float(), size) for mask in masks])


def resized(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map or mask `[h, w]` at another (height, width), float32."""
    values = mask.detach().float().cpu().numpy()
    return torch.from_numpy(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def _as_many(pictures: list[Any], count: int) -> list[Any]:
    return [pictures[min(i, len(pictures) - 1)] for i in range(count)]
