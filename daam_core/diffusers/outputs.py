"""Pictures and their sizes in what a pipeline gave out, whatever its `output_type` was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..capture.recording import Recording
from ..types import Size


def output_pictures(output: Any) -> Any:
    """The pictures of a pipeline's output, one for each image, in whatever form they are; None for videos."""
    pictures = pictures_of(output)
    if isinstance(pictures, (np.ndarray, Tensor)):
        return pictures if pictures.ndim == 4 else None
    if isinstance(pictures, list) and all(isinstance(picture, Image.Image) for picture in pictures):
        return pictures
    return None


def output_size(output: Any, given: Mapping[str, Any], pipe: Any, recording: Recording) -> Size:
    """(height, width) in pixels of the pictures or the frames of the video that a call made."""
    one: Any = pictures_of(output)
    while isinstance(one, (list, tuple)) and one:
        one = one[0]
    if isinstance(one, Image.Image):
        return one.height, one.width
    if isinstance(one, np.ndarray) and one.ndim >= 3 and one.shape[-1] in (1, 3, 4):
        return int(one.shape[-3]), int(one.shape[-2])
    latent = given.get("output_type") == "latent" or given.get("output") == "latents"
    if isinstance(one, Tensor) and one.ndim >= 3 and one.shape[-3] in (1, 3) and not latent:
        return int(one.shape[-2]), int(one.shape[-1])
    if given.get("height") and given.get("width"):
        return int(given["height"]), int(given["width"])
    # Latents: as large as the autoencoder and the patches make the finest grid.
    factor = 2 * int(getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None) or 8)
    grids = [grid for group in recording.groups for grid in group.accumulator.grids.values()]
    height, width = max(grids, default=(1, 1))
    return height * factor, width * factor


def pictures_of(output: Any) -> Any:
    for name in ("images", "frames", "videos"):
        # A modular pipeline gives its whole state, some of it by name, or one thing of it.
        found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if found is not None:
            return found
    if (video := getattr(output, "video", None)) is not None:  # a pipeline that makes one; of one frame it is a picture
        return video if len(video) == 1 else [video] if isinstance(video, list) else video[None]
    if isinstance(output, (list, np.ndarray, Tensor)):
        return output
    return output[0] if isinstance(output, tuple) and output else None
