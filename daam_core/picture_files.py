"""Picture files of people, opened as what they are: bounded in pixels before they are decoded, of known formats only."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from .errors import BadArgument
from .types import Image

# Some of its complaints are logged, and where nobody listens Python prints them.
logging.getLogger("PIL").addHandler(logging.NullHandler())

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What is decoded; other formats of PIL's (EPS starts another program) are not."""
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MOST_PIXELS = 2**27
"""Pixels of the largest picture that is taken (11585 x 11585), as of a record."""


def load_picture(source: str | Path | BinaryIO) -> Image:
    """A picture file, or one in memory, as uint8 `[H, W, 3]`, turned as its camera says; of several frames the first.

    Raises:
        BadArgument: no such file, no picture of a known format, a damaged one, or one of too many pixels.
    """
    return opened(source, lambda file: rgb_pixels(PIL.ImageOps.exif_transpose(file)))


def rgb_pixels(image: PIL.Image.Image) -> Image:
    """A picture of any mode of PIL's as uint8 `[H, W, 3]`, as a viewer shows it: what is transparent lies on white, and 16 bits
    of grey are scaled to 8 (PIL itself shows colours that nobody sees, and cuts 16 bits off at 255).

    Raises:
        BadArgument: its numbers have no range that is known, or it has no pixel.

    Example:
        >>> int(rgb_pixels(PIL.Image.new("RGBA", (1, 1), (255, 0, 0, 0)))[0, 0, 1])
        255
    """
    if not (image.width and image.height):
        raise BadArgument(f"A picture of {image.width} x {image.height} pixels shows nothing; give one of at least 1 x 1.")
    image = _unmultiplied(image)
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        if image.mode == "F" or not 0 <= int(grey.min()) <= int(grey.max()) < 2**16:
            raise BadArgument(f"A picture of mode {image.mode} has numbers of a range that is not known; save it with 8 bits.")
        image = PIL.Image.fromarray((grey.astype(np.float32) / 257).round().astype(np.uint8))
    if _is_transparent(image):
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def picture_pixels(picture: object) -> Image:
    """Whatever is a picture in memory, PIL's or uint8 numbers, as uint8 `[H, W, 3]`.

    Raises:
        BadArgument: it is none.
    """
    if isinstance(picture, PIL.Image.Image):
        return rgb_pixels(picture)
    try:
        pixels = np.asarray(picture)
    except (ArithmeticError, RuntimeError, TypeError, ValueError):  # such as rows of different length
        pixels = np.asarray(None)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size:
        return pixels
    seen = f"{pixels.dtype} {list(pixels.shape)}" if pixels.ndim and pixels.dtype.kind in "biuf" else type(picture).__name__
    raise BadArgument(f"A picture is a PIL image or uint8 [height, width, 3] (RGB), not {seen}.")


def mask_pixels(image: PIL.Image.Image) -> NDArray[np.bool_]:
    """A picture of any mode of PIL's as a mask, bool `[H, W]`: where it is opaque, if it has transparency, else where it is
    brighter than half.

    Raises:
        BadArgument: its numbers have no range that is known, or it has no pixel.
    """
    image = _unmultiplied(image)
    if _is_transparent(image):
        return np.asarray(image.convert("RGBA").getchannel("A")) > 0
    return np.asarray(PIL.Image.fromarray(rgb_pixels(image)).convert("L")) > 127


def load_mask(path: str | Path) -> NDArray[np.uint8]:
    """A picture file as a mask, uint8 0 or 1 `[H, W]`, turned as its camera says; see `mask_pixels`. Raises BadArgument."""
    return opened(path, lambda file: mask_pixels(PIL.ImageOps.exif_transpose(file)).astype(np.uint8))


def _unmultiplied(image: PIL.Image.Image) -> PIL.Image.Image:
    """Grey times its opacity as grey and opacity, the one thing that Pillow makes of it; any other picture as it is."""
    return image.convert("LA") if image.mode == "La" else image


def _is_transparent(image: PIL.Image.Image) -> bool:
    """PIL's own `has_transparency_data`, which Pillow 9.5 (that of AUTOMATIC1111 and Forge) does not have yet."""
    return (
        image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        or "transparency" in image.info
        or (image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"))
    )


def load_label_map(path: str | Path) -> NDArray[np.uint8]:
    """A picture file whose numbers are classes (a palette, or grey) as uint8 `[H, W]`. Raises BadArgument."""

    def numbers(file: PIL.Image.Image) -> NDArray[np.uint8]:
        if file.mode not in ("P", "L", "1"):
            raise BadArgument(f"The label map {path} has colours ({file.mode}); it is a picture with a palette, or grey.")
        return np.asarray(file).astype(np.uint8)

    return opened(path, numbers)


def opened(
    source: str | Path | BinaryIO, read: Callable[[PIL.Image.Image], NDArray[np.uint8]], formats: tuple[str, ...] = FORMATS
) -> NDArray[np.uint8]:
    """What `read` makes of a picture file of one of these formats, once its size is bounded.

    Raises:
        BadArgument: it is none, is damaged, or has more than `MOST_PIXELS`.
    """
    what = f"The picture {source}" if isinstance(source, (str, Path)) else "The picture"
    try:
        # PIL warns of large and of damaged pictures on stderr; the bound and the sentences here are our own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(source, formats=formats) as file:
                checked_pixels(file.width, file.height, what)
                return np.ascontiguousarray(read(file))
    except BadArgument:
        raise
    except PIL.Image.DecompressionBombError:
        raise BadArgument(f"{what} has too many pixels; up to {MOST_PIXELS} are read. Make it smaller.") from None
    except PIL.UnidentifiedImageError:
        raise BadArgument(f"{what} is no picture that can be read; there are {', '.join(formats)}.") from None
    except OSError as error:
        reason = error.strerror or "it is damaged or cut off"
        raise BadArgument(f"{what} cannot be read: {reason[:1].lower()}{reason[1:]}.") from None
    except (ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, struct.error) as error:
        # What PIL's decoders raise for files that are damaged on purpose.
        raise BadArgument(f"{what} cannot be read: it is damaged ({type(error).__name__}).") from None


def checked_pixels(width: int, height: int, what: str = "The picture") -> None:
    """Raises BadArgument for a picture of too many pixels."""
    if width * height > MOST_PIXELS:
        raise BadArgument(f"{what} has {width} x {height} pixels; up to {MOST_PIXELS} are read. Make it smaller.")
