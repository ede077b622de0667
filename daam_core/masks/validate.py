"""What every mask function asks of its arguments, and the loop over leading dimensions for OpenCV's sake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import BadArgument

Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


def checked_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """`maps` as float32, if it is a finite `[..., h, w]` of at least one pixel; else BadArgument."""
    if maps.ndim < 2 or maps.shape[-1] == 0 or maps.shape[-2] == 0:
        raise BadArgument(f"{name} must be [..., height, width] with at least one pixel, got {list(maps.shape)}.")
    maps = maps.float()
    if not bool(torch.isfinite(maps).all()):
        bad = int((~torch.isfinite(maps)).sum())
        raise BadArgument(
            f"{name} holds {bad} values that are NaN or infinite: the model's attention overflowed while recording; "
            "record again in float32 or bfloat16."
        )
    return maps


def checked_masks(masks: Tensor, name: str = "mask") -> Tensor:
    """`masks` if it is bool `[..., h, w]` of at least one pixel; else BadArgument."""
    if masks.dtype != torch.bool:
        raise BadArgument(f"{name} must be bool, got {masks.dtype}: threshold it first.")
    if masks.ndim < 2 or masks.shape[-1] == 0 or masks.shape[-2] == 0:
        raise BadArgument(f"{name} must be [..., height, width] with at least one pixel, got {list(masks.shape)}.")
    return masks


def checked_picture(picture: Picture) -> Picture:
    """`picture` if it is uint8 `[H, W, 3]` of at least one pixel; else BadArgument."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise BadArgument(f"A picture must be uint8 [height, width, 3] (RGB), got {picture.dtype} {list(picture.shape)}.")
    return np.ascontiguousarray(picture)


def checked_share(value: float, name: str) -> float:
    """`value` if it lies in 0..1; else BadArgument."""
    if not 0.0 <= value <= 1.0:
        raise BadArgument(f"{name} must lie in 0..1, got {value}.")
    return value


def checked_positive(value: float, name: str, or_zero: bool = False) -> float:
    """`value` if it is finite and above zero (or not below it); else BadArgument."""
    if not (np.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        raise BadArgument(f"{name} must be {'at least' if or_zero else 'above'} zero, got {value}.")
    return value


def per_mask(masks: Tensor, change: Callable[[Picture], npt.NDArray[np.generic]]) -> Tensor:
    """`change` (uint8 0/1 `[h, w]` to an array `[h, w]`) for each mask of bool `[..., h, w]`, on its device."""
    flat = masks.detach().cpu().reshape(-1, *masks.shape[-2:]).to(torch.uint8).numpy()
    done = [torch.from_numpy(np.ascontiguousarray(change(np.ascontiguousarray(one)))) for one in flat]
    if not done:
        return masks
    return torch.stack(done).reshape(masks.shape).to(masks.device)
