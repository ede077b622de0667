"""Pictures and frames of videos as the bytes that a record holds, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, BadRecord
from ..opencv import cv2
from ..picture_files import MOST_PIXELS, opened
from ..types import Image, Size, Video
from .film import LARGEST_VIDEO

LARGEST_PICTURE = MOST_PIXELS
"""Pixels of the largest picture a record may hold (11585 x 11585)."""
JPEG_QUALITY = 92
"""Of the frames of a video: a frame of 832 x 480 takes some 60 KB, without loss it would take ten times as much."""
_JPEG_SIZES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
"""Markers of the parts of a JPEG file that say how large it is."""


def to_png(picture: Image) -> Tensor:
    """uint8 `[H, W, 3]` -> uint8 `[bytes]`."""
    _, data = cv2.imencode(".png", picture[..., ::-1])
    return torch.from_numpy(data.reshape(-1).copy())


def from_png(data: Tensor) -> Image:
    """The inverse of `to_png`.

    Raises:
        BadRecord: it is no PNG, or one larger than any that can be shown.
    """
    picture = _decoded(_bytes(data), "PNG")
    if picture is None:
        raise BadRecord("The picture inside this record cannot be read; record it again.")
    return picture


def to_jpegs(video: Video) -> dict[str, Tensor]:
    """uint8 `[frames, H, W, 3]` -> uint8 `[bytes]` of each, by its name in a record."""
    options = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    encoded = [cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]), options)[1] for frame in video]
    return {f"video/{i}": torch.from_numpy(data.reshape(-1).copy()) for i, data in enumerate(encoded)}


def from_jpegs(tensors: Mapping[str, Tensor], frames: int, size: Size) -> Video:
    """The inverse of `to_jpegs`: so many frames of one size (height, width).

    Raises:
        BadRecord: frames are missing, are no JPEG, are of another size, or are more than can be held.
    """
    height, width = size
    if frames * height * width > LARGEST_VIDEO:
        raise BadRecord(f"This record's video of {frames} frames of {width} x {height} pixels is larger than any that is held.")
    found = [name for name in tensors if name.startswith("video/")]
    if set(found) != {f"video/{i}" for i in range(frames)}:
        raise BadRecord(f"This record promises a video of {frames} frames and has {len(found)}; record it again.")
    video = np.empty((frames, height, width, 3), np.uint8)
    for i in range(frames):
        raw = _bytes(tensors[f"video/{i}"])
        seen = _jpeg_size(raw)
        frame = _decoded(raw, "JPEG") if seen == size else None
        if frame is None or frame.shape != (height, width, 3):
            raise BadRecord(f"Frame {i} of this record's video is no picture of {width} x {height} pixels; record it again.")
        video[i] = frame
    return video


def _decoded(raw: bytes, kind: Literal["PNG", "JPEG"]) -> Image | None:
    """A picture of this kind as uint8 `[H, W, 3]`; None of anything else, of a damaged one, and of one larger than any that can
    be shown. By Pillow: what OpenCV decodes with writes to stderr by itself what it thinks of a damaged picture."""
    try:
        return opened(io.BytesIO(raw), lambda file: np.array(file.convert("RGB")), (kind,))
    except BadArgument:
        return None


def _jpeg_size(raw: bytes) -> Size | None:
    """(height, width) that a JPEG promises; None where it is none, or is turned by what stands in it."""
    at = 2
    if raw[:2] != b"\xff\xd8":
        return None
    while at + 9 <= len(raw) and raw[at] == 0xFF:
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if marker in _JPEG_SIZES:
            return int.from_bytes(raw[at + 5 : at + 7], "big"), int.from_bytes(raw[at + 7 : at + 9], "big")
        if marker == 0xE1 or length < 2:  # ours have no EXIF
            return None
        at += 2 + length
    return None


def _bytes(data: Tensor) -> bytes:
    return data.contiguous().numpy().tobytes() if data.dtype is torch.uint8 and data.dim() == 1 else b""
