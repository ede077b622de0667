"""What every mask function asks of its arguments, and the loop over leading dimensions for OpenCV's sake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import BadArgument, quoted
from ..types import Size

Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
MOST_PIXELS = 2**27
"""The largest picture, as for PNG files."""
LARGEST_WHOLE = 2**31 - 1
"""The largest count where nothing smaller is the limit."""


def checked_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """`maps` as float32, if it is a finite `[..., h, w]` of at least one pixel; else BadArgument."""
    _check_tensor(maps, name)
    if maps.is_complex() or maps.is_quantized:
        raise BadArgument(f"{name} must hold real numbers, got {maps.dtype}.")
    _check_held(maps, name)
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
    _check_tensor(masks, name)
    if masks.dtype != torch.bool:
        raise BadArgument(f"{name} must be bool, got {masks.dtype}: threshold it first.")
    _check_held(masks, name)
    if masks.ndim < 2 or masks.shape[-1] == 0 or masks.shape[-2] == 0:
        raise BadArgument(f"{name} must be [..., height, width] with at least one pixel, got {list(masks.shape)}.")
    return masks


def checked_picture(picture: Picture) -> Picture:
    """`picture` if it is uint8 `[H, W, 3]` of at least one pixel; else BadArgument."""
    if not isinstance(picture, np.ndarray):
        raise BadArgument(f"A picture must be a NumPy array, uint8 [height, width, 3] (RGB), got {type(picture).__name__}.")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise BadArgument(f"A picture must be uint8 [height, width, 3] (RGB), got {picture.dtype} {list(picture.shape)}.")
    return np.ascontiguousarray(picture)


def checked_size(size: Size) -> Size:
    """(height, width) as two whole numbers, if both are at least 1 and the picture holds at most `MOST_PIXELS`."""
    sides = tuple(size) if isinstance(size, (tuple, list, torch.Size)) else ()
    whole = len(sides) == 2 and all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in sides)
    if not whole or min(sides) < 1:
        raise BadArgument(f"size must be (height, width), two whole numbers of at least 1, got {quoted(size, 60)}.")
    height, width = int(sides[0]), int(sides[1])
    if height * width > MOST_PIXELS:
        raise BadArgument(f"A size of {height} x {width} has more than {MOST_PIXELS} pixels.")
    return height, width


def checked_share(value: float, name: str) -> float:
    """`value` if it is a number of 0..1; else BadArgument."""
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise BadArgument(f"{name} must lie in 0..1, got {quoted(value, 40)}.")
    return value


def checked_whole(value: int, name: str, least: int, most: int = LARGEST_WHOLE) -> int:
    """`value` if it is a whole number of `least`..`most`; else BadArgument."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        limits = f"of at least {least}" if most == LARGEST_WHOLE else f"from {least} to {most}"
        raise BadArgument(f"{name} must be a whole number {limits}, got {quoted(value, 40)}.")
    return int(value)


def checked_positive(value: float, name: str, or_zero: bool = False) -> float:
    """`value` if it is finite and above zero (or not below it); else BadArgument."""
    if not _is_number(value) or not (np.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        raise BadArgument(f"{name} must be {'at least' if or_zero else 'above'} zero, got {quoted(value, 40)}.")
    return value


def checked_number(value: float, name: str, least: float, most: float) -> float:
    """`value` if it is a number of `least`..`most`; else BadArgument."""
    if not _is_number(value) or not least <= value <= most:
        raise BadArgument(f"{name} must be a number from {least:g} to {most:g}, got {quoted(value, 40)}.")
    return value


def per_mask(masks: Tensor, change: Callable[[Picture], npt.NDArray[np.generic]]) -> Tensor:
    """`change` (uint8 0/1 `[h, w]` to an array `[h, w]`) for each mask of bool `[..., h, w]`, on its device."""
    flat = masks.detach().cpu().reshape(-1, *masks.shape[-2:]).to(torch.uint8).numpy()
    done = [torch.from_numpy(np.ascontiguousarray(change(np.ascontiguousarray(one)))) for one in flat]
    if not done:
        return masks
    return torch.stack(done).reshape(masks.shape).to(masks.device)


def _is_number(value: object) -> bool:
    # A whole number beyond float's range has no float to compare with.
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return plain and not (isinstance(value, int) and abs(value) >= 2**63)


def _check_tensor(value: object, name: str) -> None:
    if not isinstance(value, Tensor):
        raise BadArgument(f"{name} must be a torch tensor, got {type(value).__name__}.")


def _check_held(value: Tensor, name: str) -> None:
    """Raises BadArgument for a tensor without values of its own (PyTorch's "meta"), or that holds some of them alone."""
    if value.layout != torch.strided or value.is_meta:
        raise BadArgument(f"{name} must hold all of its values, got a tensor of {value.layout} on {value.device}.")
