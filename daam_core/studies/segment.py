"""Objects that the trained segmenter finds in a picture of the embedded world."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch

from ..errors import BadArgument
from .study import Picture

if TYPE_CHECKING:
    from ..tiny.segmenter import Found, Segmenter


def things_in(image: Picture) -> Mapping[str, Found]:
    """Noun, colour and mask of each thing in a uint8 picture `[128, 128, 3]`. Raises BadArgument for another size."""
    from ..tiny.scenes import SIZE

    if image.shape != (SIZE, SIZE, 3):
        raise BadArgument(
            f"The trained segmenter knows pictures of {SIZE} x {SIZE} px, and these are {image.shape[1]} x {image.shape[0]}: "
            "leave out --size."
        )
    (found,) = segmenter().find(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    return found


@cache
def segmenter() -> Segmenter:
    """The trained segmenter, loaded once a process."""
    from ..tiny.load import load_segmenter

    return load_segmenter()
