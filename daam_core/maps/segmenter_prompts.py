"""Between a word and a segmenter such as SAM 3: points and boxes for it, and its masks scored against the word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import BadArgument
from ..masks.metrics import iou
from ..masks.points import Box, Point, boxes, negative_points, positive_points

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

MOST_POINTS = 32
"""Points of one kind that are given at most."""


@dataclass(frozen=True)
class SegmenterPrompts:
    """What a segmenter is asked: (x, y) that belong to the word, (x, y) that do not, a box around each part of its mask."""

    positive: list[Point]
    negative: list[Point]
    boxes: list[Box]


@dataclass(frozen=True)
class MaskScore:
    """How one mask fits one word.

    Attributes:
        share: part of the word's heat that lies inside, 0..1.
        lift: that share over the mask's share of the picture: 1 is what any place would get.
        iou: with the word's own mask, 0..1.
    """

    share: float
    lift: float
    iou: float


def segmenter_prompts(
    maps: HeatMaps, word: str, mask: Tensor, *, positive: int = 3, negative: int = 3, smallest: float = 0.5
) -> SegmenterPrompts:
    """Points and boxes for one word, in pixels of the picture.

    Args:
        maps: of one picture.
        word: a word or phrase of its prompt, or a recorded concept.
        mask: bool `[H, W]` of the word, of the picture's size.
        positive, negative: how many points at most, 0 to 32; negative ones lie on the prompt's other nouns.
        smallest: parts of the mask below this per cent of the picture get no box.

    Raises:
        BadArgument: a number out of range, or a mask of another size.
        WordNotFound: the prompt has no such word.

    Example:
        >>> from daam_core import load_tiny, trace
        >>> pipe = load_tiny()
        >>> pipe.set_progress_bar_config(disable=True)
        >>> with trace(pipe) as recording:
        ...     image = pipe("a red house and a green tree", num_inference_steps=4).images[0]
        >>> maps = recording.heat_maps()
        >>> asked = segmenter_prompts(maps, "house", maps.mask("house"), positive=2)
        >>> 1 <= len(asked.positive) <= 2 and len(asked.boxes) >= 1
        True
    """
    if not (0 <= positive <= MOST_POINTS and 0 <= negative <= MOST_POINTS):
        raise BadArgument(f"Points are 0 to {MOST_POINTS} of each kind, not {positive} and {negative}.")
    if tuple(mask.shape) != tuple(maps.size):
        raise BadArgument(f"The mask is {tuple(mask.shape)}, the picture {tuple(maps.size)} (height, width).")
    heat = maps.heat_map(word, size=maps.size)
    others = [maps.heat_map(other, size=maps.size) for other in maps.competitors(word)] if negative else []
    return SegmenterPrompts(
        positive_points(heat, mask, positive), negative_points(heat, mask, others, negative), boxes(mask, smallest)
    )


def score_masks(maps: HeatMaps, word: str, masks: Sequence[Tensor], own: Tensor) -> list[MaskScore]:
    """How each of a segmenter's masks fits a word: which of three dogs did "dog" paint?

    Args:
        masks: bool or 0..1 `[H, W]` each, of the picture's size.
        own: the word's own mask, bool `[H, W]`.

    Raises:
        BadArgument: a mask of another size.
        WordNotFound: the prompt has no such word.
    """
    heat = maps.heat_map(word, size=maps.size).clamp(min=0).double()
    total = heat.sum().clamp(min=torch.finfo(torch.float64).tiny)
    scores = []
    for mask in masks:
        if tuple(mask.shape) != tuple(maps.size):
            raise BadArgument(f"A mask is {tuple(mask.shape)}, the picture {tuple(maps.size)} (height, width).")
        inside = mask > 0.5
        share = float(heat[inside].sum() / total)
        area = float(inside.double().mean())
        scores.append(MaskScore(share, share / area if area else 0.0, float(iou(inside, own > 0.5))))
    return scores
