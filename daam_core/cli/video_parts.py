"""What `daam-lens` writes of a video: the video, overlays that play, and masks frame by frame."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArgument
from ..files import write_png

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..maps.heatmaps import HeatMaps
    from ..masks.methods import MaskResult


def write_video_itself(maps: HeatMaps, folder: Path, fps: float) -> list[Path]:
    """`video.mp4` (`.webp` without PyAV), where the recording has the video's frames. Raises CannotWrite."""
    from ..render import write_video

    return [] if maps.video is None else [write_video(maps.video, folder / "video.mp4", fps)]


def write_video_overlay(maps: HeatMaps, word: str, path: Path, args: argparse.Namespace) -> Path:
    """The heat of a word over the video, `.mp4` (`.webp` without PyAV). Raises CannotWrite."""
    fps = getattr(args, "fps", 16.0)
    # Latent frames are shown as long as the frames that they stand for.
    if maps.video is None and maps.frames is not None:
        fps = max(1.0, fps / 4)
    return maps.save_video(word, path, fps, opacity=args.opacity, colormap=args.colormap)


def write_frame_masks(pixels: Sequence[NDArray[np.uint8]], name: str, folder: Path, numbers: Sequence[int]) -> list[Path]:
    """`mask_NAME_f012.png` for each frame. Raises CannotWrite."""
    return [write_png(folder / f"mask_{name}_f{n:03d}.png", one) for n, one in zip(numbers, pixels, strict=True)]


def mask_of_frames(
    maps: HeatMaps, word: str, frames: tuple[int, ...] | str | None, args: argparse.Namespace
) -> tuple[MaskResult, list[int]]:
    """A word's mask `[frames, H, W]` of a video, and the number of each frame.

    All frames decide together which level is the object's, whichever of them are asked for.

    Raises:
        BadArgument: there is no such frame, or the recording has not the frames of the video itself.
    """
    assert maps.frames is not None
    count = None
    if frames == "video":
        if maps.video is None:
            raise BadArgument("This record has not the frames of the video itself; leave out `--frames video`.")
        count = len(maps.video)
    numbers = list(range(count or maps.num_frames))
    if isinstance(frames, tuple):
        numbers = maps.frames.chosen(frames)
    result = maps.mask_result(word, args.method, tau=args.tau, competitors=getattr(args, "competitors", None), frames=count)
    return result, numbers
