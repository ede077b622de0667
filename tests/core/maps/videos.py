"""Maps of a small video whose right answer is known, for the tests of frames."""

from __future__ import annotations

import numpy as np
import torch

from daam_core import HeatMaps
from daam_core.maps.data import LayerInfo, RecordedImage
from daam_core.maps.frames import Frames
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer

GRID, LATENTS, SIZE = (6, 8), 4, (48, 64)


def prompt(text: str) -> Prompt:
    tok = tokenizer()
    return Prompt.from_ids(tok(text, padding="max_length", truncation=True).input_ids, tok, text=text)


def side(sums: torch.Tensor, words: Prompt, frames: Frames | None) -> RecordedImage:
    """A side with one resolution, of `[frames, channels, h, w]`."""
    grid = (int(sums.shape[-2]), int(sums.shape[-1]))
    return RecordedImage(
        sums={grid: sums},
        time_weighted={grid: sums * 2},
        num_terms={grid: 8},
        layers=(LayerInfo("blocks.0", grid, 4, "mid"),),
        detail=None,
        heads=None,
        self_attention=None,
        prompt=words,
        steps=2,
        timesteps=(2.0, 1.0),
        frames=frames,
    )


def random_video(text: str = "a red house", latents: int = LATENTS) -> HeatMaps:
    """Random sums for every channel of every frame."""
    words = prompt(text)
    noise = torch.Generator().manual_seed(latents)
    sums = torch.rand(latents, words.num_channels, *GRID, generator=noise)
    return HeatMaps({"prompt": side(sums, words, Frames(tuple((i, i + 1) for i in range(latents)), latents))}, SIZE)


def square_at(left: int) -> tuple[slice, slice]:
    """Where the house stands in a frame of the moving video, in positions of the grid (12 x 16)."""
    return slice(4, 8), slice(left, left + 4)


LEFTS = (1, 4, 7, 10)


def moving_house(peaks: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> HeatMaps:
    """A house that moves to the right by 3 of 16 positions a frame, as a light square on dark, with a peak in each frame."""
    words = prompt("a red house")
    channel = words.find("house").channels[0]
    sums = torch.full((4, words.num_channels, 12, 16), 0.02)
    video = np.full((4, 96, 128, 3), 40, np.uint8)
    for f, (left, peak) in enumerate(zip(LEFTS, peaks, strict=True)):
        rows, columns = square_at(left)
        sums[f, channel, rows, columns] = peak
        if peak > 0.02:
            video[f, 32:64, 8 * left : 8 * left + 32] = 220
    frames = Frames(tuple((i, i + 1) for i in range(4)), 4)
    return HeatMaps({"prompt": side(sums, words, frames)}, (96, 128)).with_video(video)
