"""The frames of a video as pixels: what is one, and how large it may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image

from ..errors import BadArgument
from ..picture_files import picture_pixels
from ..types import Image, Video
from .word_maps import MOST_FRAMES

LARGEST_VIDEO = 2**27
"""Pixels of all frames of the largest video that is held (400 MB): 321 of 832 x 480, 145 of 1280 x 720."""


def checked_video(video: Video | Sequence[Image | PIL.Image.Image]) -> Video:
    """Frames as uint8 `[frames, H, W, 3]` RGB.

    Raises:
        BadArgument: they are no frames of one size, or too many.
    """
    if isinstance(video, np.ndarray):
        return _checked(video)
    first = video[0] if len(video) else None
    shape = (first.height, first.width) if isinstance(first, PIL.Image.Image) else np.asarray(first).shape[:2]
    if len(shape) == 2:
        _check_size(len(video), *shape)
    frames = [picture_pixels(one) for one in video]
    if len({frame.shape for frame in frames}) != 1:
        raise BadArgument("The frames of a video are pictures of one size, and these are not.")
    return _checked(np.stack(frames))


def _checked(frames: Video) -> Video:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise BadArgument(f"A video is uint8 [frames, height, width, 3], not {frames.dtype} {list(frames.shape)}.")
    _check_size(*frames.shape[:3])
    return frames


def _check_size(frames: int, height: int, width: int) -> None:
    if frames > MOST_FRAMES or frames * height * width > LARGEST_VIDEO:
        raise BadArgument(
            f"A video of {frames} frames of {width} x {height} pixels is larger than a recording holds ({MOST_FRAMES} frames, "
            f"{LARGEST_VIDEO} pixels in all): give fewer or smaller frames."
        )
