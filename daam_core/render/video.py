"""A video with the heat of a word over it, frame by frame, as MP4, WebP or GIF."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument, CannotWrite, quoted
from ..files import atomic_write
from .animation import animate
from .arguments import checked_path, checked_row, checked_sized, checked_top, is_number, is_row
from .caption import Unit
from .colormaps import ColourMap
from .overlay import Enlarge, Heat, Picture, as_heat, as_picture
from .sheets import caption_background, overlay
from .text import Theme, theme_colors

LONGEST_SIDE = 4096
"""Pixels of a frame's longer side: what decoders of H.264 take."""
MOST_FRAMES = 4096
MOST_HELD = 2**27
"""Pixels of all frames of a WebP or GIF, which are held until the last one is there; those of an MP4 are not."""
SUFFIXES = (".mp4", ".webp", ".gif")


def video_frames(
    video: Sequence[ArrayLike | Image.Image],
    heats: Iterable[Heat],
    label: str,
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    *,
    top: float | None = None,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
    unit: Unit = "",
) -> Iterator[Picture]:
    """One card for each frame of a video: the heat over it; below, the word, a colour bar and a line that grows with time.

    Args:
        video: the frames, uint8 `[H, W, 3]` each.
        heats: the word's map `[h, w]` of each.
        top: the heat that gets the brightest colour, for all frames: the largest of them.
        unit: of the bar's numbers, see `overlay`.

    Raises:
        BadArgument: not as many maps as frames, or a frame, map, opacity or colour map that is none.
    """
    maps = checked_row(heats, "The maps of a video are a row, one for each frame")
    video, top = checked_sized(video, "A video is a row of frames"), checked_top(top)
    if len(maps) != len(video):
        raise BadArgument(f"A video of {len(video)} frames takes as many maps, not {len(maps)}.")
    top = max((float(as_heat(heat).max()) for heat in maps), default=0.0) if top is None else top
    accent = theme_colors(theme).accent
    for i, (picture, heat) in enumerate(zip(video, maps, strict=True)):
        ground = caption_background(picture, enlarge)
        shown = overlay(ground, heat, opacity, colormap, label, True, top=top if top > 0 else None, theme=theme, unit=unit)
        card = shown.copy()
        thick = max(3, card.shape[1] // 160)
        card[-thick:, : round(card.shape[1] * (i + 1) / len(maps))] = accent
        yield card


def write_video(frames: Iterable[ArrayLike | Image.Image], path: str | Path, fps: float = 16.0) -> Path:
    """Write frames as a video, whole or not at all.

    Args:
        frames: uint8 `[H, W, 3]`, all of one size.
        path: ends with `.mp4` (H.264, which every browser plays; needs PyAV: `pip install "daam-lens[video]"`), `.webp` or
            `.gif`.
        fps: frames a second, 1 .. 60.

    Returns:
        The path that was written: `.webp` in place of `.mp4` where PyAV is not installed.

    Raises:
        BadArgument: no frames, too many or too large ones, of different sizes, or another suffix.
        CannotWrite: no such folder, no permission, disk full.
    """
    target = checked_path(path)
    kind = target.suffix.lower()
    if kind not in SUFFIXES:
        raise BadArgument(f"A video is .mp4, .webp or .gif, not {quoted(target.name, 80)}.")
    if not is_number(fps, 1, 60):
        raise BadArgument(f"A video has 1 to 60 frames a second, not {quoted(fps, 40)}.")
    if not is_row(frames):
        raise BadArgument(f"A video is a row of frames, not {quoted(frames, 60)}.")
    checked = _checked(frames)
    if kind == ".mp4" and has_pyav():
        return _write_mp4(target, checked, fps)
    if kind == ".mp4":
        target = target.with_suffix(".webp")
    held, pixels = [], 0
    for frame in checked:
        pixels += frame.shape[0] * frame.shape[1]
        if pixels > MOST_HELD:
            raise BadArgument(
                f"A WebP or GIF has at most {MOST_HELD} pixels in all frames: write .mp4, or fewer or smaller frames."
            )
        held.append(frame)
    return animate(held, target, 1 / fps, hold=1 / fps)


def _write_mp4(target: Path, frames: Iterator[Picture], fps: float) -> Path:
    wrong: list[BadArgument] = []

    def fill(file: BinaryIO) -> None:
        try:
            _encode(file, frames, fps)
        except BadArgument as error:
            wrong.append(error)
            raise

    try:
        return atomic_write(target, fill, advice="Choose another place.")
    except CannotWrite:
        if wrong:  # what is wrong is a frame, not the file
            raise wrong[0] from None
        raise


def has_pyav() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def _checked(frames: Iterable[ArrayLike | Image.Image]) -> Iterator[Picture]:
    """Frames of one size, neither too many nor too large."""
    size: tuple[int, ...] | None = None
    for i, one in enumerate(frames):
        frame = as_picture(one)
        size = frame.shape if size is None else size
        if frame.shape != size:
            raise BadArgument(f"The frames of a video have one size; frame {i} has another than the first.")
        if max(size) > LONGEST_SIDE or i >= MOST_FRAMES:
            raise BadArgument(
                f"A video has at most {MOST_FRAMES} frames of up to {LONGEST_SIDE} pixels a side, and these are {size[1]} x "
                f"{size[0]}."
            )
        yield frame
    if size is None:
        raise BadArgument("A video needs at least one frame.")


def _encode(file: BinaryIO, frames: Iterator[Picture], fps: float) -> None:
    """H.264 in MP4, with the colours of sRGB screens (BT.709)."""
    import av

    try:
        with av.open(file, "w", format="mp4") as container:
            stream: Any = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                    stream.pix_fmt, stream.options = "yuv420p", {"crf": "17", "preset": "medium"}
                    stream.height, stream.width = (side + side % 2 for side in frame.shape[:2])
                    stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
                # Two pixels share a colour: an odd side gets its last line twice.
                odd = [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)]
                made = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(frame, odd, mode="edge")), format="rgb24")
                container.mux(stream.encode(made.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise CannotWrite(f"The video could not be encoded ({error}). Write it as .webp.") from error
