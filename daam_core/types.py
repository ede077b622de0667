"""Types that every room shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, int]
"""(h, w) of latent positions or patches."""
Size = tuple[int, int]
"""(height, width) in pixels."""
Image = NDArray[np.uint8]
"""A picture, uint8 `[H, W, 3]` RGB."""
Video = NDArray[np.uint8]
"""The frames of a video, uint8 `[frames, H, W, 3]` RGB."""
Block = Literal["down", "mid", "up"]
"""Where in a model a layer stands; every layer of a transformer is "mid"."""
Side = Literal["prompt", "negative", "concepts"]
"""Which of a picture's two texts, or what was looked for beside them."""
Relation = Literal["image->text", "text->image", "text->text", "image->image"]
"""Whose queries attend to whose keys; "image->text" is Eq. 6."""


@dataclass(frozen=True)
class Layer:
    """One attention layer of a loaded model.

    Attributes:
        name: module path inside the model.
        block: where in the model it stands.
        heads: number of attention heads.
        scale: factor on the scores.
    """

    name: str
    block: Block
    heads: int
    scale: float
