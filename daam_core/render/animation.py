"""Frames -> one animated GIF or WebP: the word's map growing over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument, quoted
from ..files import atomic_write
from ..validate import checked_switch
from .arguments import checked_path, checked_row, is_number
from .caption import Unit
from .colormaps import ColourMap
from .overlay import Enlarge, Heat, Picture, as_heat, as_picture
from .sheets import caption_background, overlay
from .text import Theme, theme_colors

MOST_FRAMES = 1000


def step_frames(
    picture: ArrayLike | Image.Image,
    heats: Sequence[Heat],
    label: str,
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    *,
    same_scale: bool = True,
    theme: Theme = "dark",
    enlarge: Enlarge = "lanczos",
    unit: Unit = "",
) -> list[Picture]:
    """One card for each step, with a line below that grows with the steps.

    Args:
        heats: the word's map `[h, w]` of each step, in order.
        unit: "%" for maps of shares 0..1; see `overlay`.
        same_scale: all frames share the largest value; else each has its own top.
    """
    values = [as_heat(heat) for heat in checked_row(heats, "The maps of a word's steps are a row of maps")]
    shared = checked_switch(same_scale, "same_scale")
    top = max((float(v.max()) for v in values), default=0.0) if shared else None
    top = top if top is not None and top > 0 else None
    ground = caption_background(picture, enlarge)
    captions = [f"{label}  {j + 1}/{len(values)}" for j in range(len(values))]
    frames = []
    for j, heat in enumerate(values):
        card = overlay(ground, heat, opacity, colormap, captions[j], True, top=top, theme=theme, unit=unit, among=captions[-1:])
        frame = card.copy()
        thick = max(3, frame.shape[1] // 100)
        frame[-thick:, : round(frame.shape[1] * (j + 1) / len(values))] = theme_colors(theme).accent
        frames.append(frame)
    return frames


def animate(frames: Sequence[ArrayLike | Image.Image], path: str | Path, seconds: float = 0.12, hold: float = 1.2) -> Path:
    """Write frames as an endless animation, whole or not at all.

    Args:
        frames: uint8 `[H, W, 3]`, all of one size.
        path: ends with `.gif` (256 colours, shared by all frames) or `.webp` (all colours, smaller).
        seconds: duration of a frame, 0.02 .. 60.
        hold: duration of the last one.

    Raises:
        BadArgument: no frames, too many, of different sizes, or another suffix.
        CannotWrite: no such folder, no permission, disk full.
    """
    target = checked_path(path)
    pictures = [as_picture(frame) for frame in checked_row(frames, "An animation is a row of frames")]
    kind = target.suffix.lower()
    if kind not in (".gif", ".webp"):
        raise BadArgument(f"An animation is .gif or .webp, not {quoted(target.name)}.")
    if not 1 <= len(pictures) <= MOST_FRAMES or len({p.shape for p in pictures}) != 1:
        raise BadArgument(f"An animation takes 1 to {MOST_FRAMES} frames of one size, but got {len(pictures)}.")
    for lasting in (seconds, hold):
        if not is_number(lasting, 0.02, 60):
            raise BadArgument(f"A frame lasts between 0.02 and 60 seconds, not {quoted(lasting, 40)}.")
    durations = [round(1000 * seconds)] * (len(pictures) - 1) + [round(1000 * hold)]
    images = [Image.fromarray(p) for p in pictures]
    options: dict[str, Any] = {"quality": 88, "method": 3}
    if kind == ".gif":
        palette = _shared_palette(pictures)
        images = [im.quantize(palette=palette, dither=Image.Dither.NONE) for im in images]
        options = {"optimize": False, "disposal": 1}

    def fill(file: BinaryIO) -> None:
        images[0].save(file, kind[1:].upper(), save_all=True, append_images=images[1:], duration=durations, loop=0, **options)

    return atomic_write(target, fill, advice="Choose another place.")


def _shared_palette(pictures: Sequence[Picture]) -> Image.Image:
    """256 colours for all frames together, so that still parts do not flicker."""
    every = max(1, len(pictures) // 8)
    # The last frame has the strongest colours: it is always among those looked at.
    some = [*pictures[::every], pictures[-1]]
    thin = max(1, max(pictures[0].shape[:2]) // 256)
    mosaic = np.concatenate([p[::thin, ::thin] for p in some], axis=0)
    return Image.fromarray(mosaic).quantize(256, method=Image.Quantize.MEDIANCUT)
