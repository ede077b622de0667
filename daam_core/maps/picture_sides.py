"""What `HeatMaps` holds: the two sides of one picture or video, its size and the picture itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..types import Image, Side, Size, Video
from .data import PromptSide, RecordedImage


@dataclass(frozen=True, eq=False, repr=False)
class PictureSides(PromptSide):
    """The values of `HeatMaps`; see there."""

    sides: Mapping[Side, RecordedImage]
    size: Size
    picture: Image | None = None
    video: Video | None = None
