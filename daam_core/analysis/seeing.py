"""What the trained segmenter sees in a picture of the embedded world."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch

from .study import Picture

if TYPE_CHECKING:
    from ..tiny.segmenter import Found, Segmenter


def things_in(image: Picture) -> Mapping[str, Found]:
    """Noun, colour and mask of each thing in a uint8 picture `[128, 128, 3]`. Raises BadArgument for another size."""
    (found,) = _segmenter().find(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    return found


@cache
def _segmenter() -> Segmenter:
    from ..tiny.load import load_segmenter

    return load_segmenter()
