"""A picture that a model reads: checked, scaled to what the model was made for, padded to whole cells of its autoencoder."""

from __future__ import annotations

import numpy as np
import PIL.Image

from .errors import BadArgument, quoted
from .opencv import cv2
from .picture_files import checked_pixels, rgb_pixels
from .types import Image, Size

LONGEST_SHAPE = 16
"""Sides of a picture are at most so many times each other."""
LARGEST_READING = 2**24
"""Pixels at which a model reads at most (4096 x 4096)."""


def checked_picture(image: Image | PIL.Image.Image) -> Image:
    """uint8 `[H, W, 3]`. Raises BadArgument for what is no picture, or one of too many pixels."""
    if isinstance(image, PIL.Image.Image):
        checked_pixels(image.width, image.height)
        return rgb_pixels(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        seen = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise BadArgument(f"A picture is a PIL image or uint8 [H, W, 3] (RGB), not {seen}.")
    checked_pixels(image.shape[1], image.shape[0])
    return image


def reading_size(picture: Size, pixels: float, asked: Size | None = None) -> Size:
    """(height, width) at which a picture is read: as asked, else so many pixels in the picture's own shape.

    Raises:
        BadArgument: the picture is too long and thin, or the size cannot be read.

    Example:
        >>> reading_size((400, 100), 128 * 128)
        (256, 64)
    """
    height, width = picture
    if asked is None:
        if max(height, width) > LONGEST_SHAPE * min(height, width):
            raise BadArgument(f"A picture of {width} x {height} pixels is too long and thin to be read; cut it.")
        scale = (pixels / (height * width)) ** 0.5
        asked = (max(1, round(height * scale)), max(1, round(width * scale)))
    return size_to_read(asked)


def size_to_read(size: Size) -> Size:
    """(height, width), if a model can read a picture of that size. Raises BadArgument."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    whole = len(sides) == 2 and all(isinstance(side, (int, np.integer)) for side in sides)
    if not whole or min(sides) < 8 or int(sides[0]) * int(sides[1]) > LARGEST_READING:
        raise BadArgument(
            f"size is (height, width), at least 8 and at most {LARGEST_READING} pixels in all, not {quoted(size, 60)}."
        )
    return int(sides[0]), int(sides[1])


def scaled(picture: Image, size: Size) -> Image:
    """The picture at (height, width)."""
    if size == picture.shape[:2]:
        return picture
    smaller = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(picture, (size[1], size[0]), interpolation=way).astype(np.uint8)


def padded(picture: Image, multiple: int) -> Image:
    """The picture with sides that are multiples, its edge repeated below and on the right.

    Example:
        >>> padded(np.zeros((5, 8, 3), np.uint8), 8).shape
        (8, 8, 3)
    """
    below, right = (-side % multiple for side in picture.shape[:2])
    return np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else picture
