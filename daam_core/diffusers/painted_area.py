"""Which part of the finished picture a pipeline's UNet paints: all of it, or what inpainting crops around its mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..capture.region import WHOLE, Area
from ..errors import BadArgument

_SHAPE = 1.02


def painted_area(pipe: Any, given: Mapping[str, Any]) -> Area:
    """The part of the picture that a call with the arguments `given` paints.

    Raises:
        BadArgument: the part has another shape than what is painted, so that its edges would be cut off.
    """
    padding, mask = given.get("padding_mask_crop"), given.get("mask_image")
    if padding is None:
        return WHOLE
    if not isinstance(mask, Image.Image):
        raise BadArgument("With `padding_mask_crop`, maps need the mask as a PIL picture.")
    side = int(pipe.unet.config.sample_size) * int(pipe.vae_scale_factor)
    height, width = given.get("height") or side, given.get("width") or side
    left, top, right, bottom = pipe.mask_processor.get_crop_region(mask, width, height, pad=padding)
    if not 1 / _SHAPE < ((right - left) * height) / ((bottom - top) * width) < _SHAPE:
        raise BadArgument(
            f"`padding_mask_crop` cuts out {right - left} x {bottom - top} pixels, whose shape is not that of "
            f"{width} x {height}: their place in the maps is not known. Choose a height and width of that shape."
        )
    return Area(top / mask.height, left / mask.width, (bottom - top) / mask.height, (right - left) / mask.width)
