"""A heat map over its picture, so that both stay readable.

Where there is no heat the picture stays as it is, colours and all; where there is much, the colour map takes over but keeps
the picture's own light and shade. So the eye finds the word at once and still knows the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..defaults import DEFAULT_OPACITY
from ..errors import BadArgument, quoted
from ..opencv import cv2
from ..picture_files import rgb_pixels
from .arguments import checked_pixels, checked_row, checked_top, is_number
from .colormaps import ColourMap, apply_colormap

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
Enlarge = Literal["nearest", "lanczos"]
LONGEST_ENLARGED = 2048
"""Pixels of the longer side up to which a picture grows: one of 8 x 1024 would have 32768 with a shorter side of 256."""

BRIGHTNESS = (0.299, 0.587, 0.114)
"""What red, green and blue add to a picture's brightness (ITU-R BT.601)."""
RISE = (0.12, 0.80)
"""Heat above the floor (as a share of what is left to the top) at which the colour begins and is fully there."""
FLOOR = 0.85
"""Part of a map's lowest twentieth that counts as floor: attention that a word has everywhere marks no place."""
_WIDEST_LINE = 255
CONTRAST = 0.25
"""A map that rises less than this above its floor is drawn weaker: it hardly prefers a place."""


@dataclass(frozen=True, eq=False)
class Background:
    """A picture that maps are laid over: all that is the same for every word, made once (see `background_of`).

    Attributes:
        picture: uint8 `[H, W, 3]`.
        light: float32 `[H, W]`, its brightness 0..255.
        relief: float32 `[H, W]`, its edges and inner drawing as light and shade around 0.
    """

    picture: Picture
    light: Floats
    relief: Floats


class TensorLike(Protocol):
    """What we need of a torch tensor, without importing torch."""

    def detach(self) -> TensorLike: ...
    def cpu(self) -> TensorLike: ...
    def float(self) -> TensorLike: ...
    def numpy(self) -> NDArray[np.float32]: ...


Heat = ArrayLike | TensorLike


def background_of(picture: ArrayLike | Image.Image) -> Background:
    """A picture made ready for many maps. Raises BadArgument for what is no picture."""
    base = as_picture(picture)
    light = cv2.transform(base.astype(np.float32), np.array([BRIGHTNESS], dtype=np.float32)).reshape(base.shape[:2])
    return Background(base, light, _relief(light))


def blend_heatmap(
    picture: ArrayLike | Image.Image | Background,
    heat: Heat,
    opacity: float = DEFAULT_OPACITY,
    colormap: ColourMap = "ember",
    *,
    top: float | None = None,
) -> Picture:
    """One heat map over one picture.

    Args:
        picture: uint8 `[H, W, 3]` (or `[H, W]`, `[H, W, 4]`), a Pillow image, or the ground that serves many maps.
        heat: `[h, w]` of any size and real type, array or tensor; negative values and NaN count as no heat.
        opacity: 0 (the picture itself) .. 1.
        colormap: a name, see `colormaps.ColourMap`.
        top: the heat that gets the brightest colour; None: the map's own maximum.

    Returns:
        uint8 `[H, W, 3]`. A map that is the same everywhere says nothing about place, and draws no colour.

    Raises:
        BadArgument: a picture, map or opacity that is none.
    """
    base = _ground(picture)
    share = relative(fit_heat(as_heat(heat), base.light.shape), top)
    return blend(base, apply_colormap(share, colormap), _strength(share), checked_opacity(opacity))


def blend_difference(
    picture: ArrayLike | Image.Image | Background, change: Heat, opacity: float = DEFAULT_OPACITY, *, top: float | None = None
) -> Picture:
    """A signed map over one picture: orange where it gained, blue where it lost, the picture where nothing changed.

    Args:
        change: `[h, w]`, any sign; `top` is the absolute change that gets the full colour (None: the largest).
    """
    base = _ground(picture)
    signed, top = fit_heat(as_heat(change), base.light.shape), checked_top(top)
    top = float(np.abs(signed).max()) if top is None else top
    share: Floats = np.clip(signed / np.float32(top), -1, 1) if top > 0 else np.zeros_like(signed)
    return blend(base, apply_colormap(share / 2 + 0.5, "tide"), _smoothstep(np.abs(share)), checked_opacity(opacity))


def outline(
    picture: ArrayLike | Image.Image,
    mask: Heat,
    colour: tuple[int, int, int] = (255, 214, 92),
    width: int | None = None,
    dim: float = 0.0,
) -> Picture:
    """A mask's edge drawn on the picture: a bright line on a dark one, so that it shows on any ground.

    Args:
        mask: `[h, w]`, anything above 0.5 is inside; scaled to the picture.
        width: pixels of the bright line; None: fitting the picture.
        dim: 0..1, how much the outside is darkened.

    Raises:
        BadArgument: a picture, mask, colour, width or darkening that is none.
    """
    if len(rgb := checked_row(colour, "A colour is three numbers from 0 to 255")) != 3 or not all(
        is_number(c, 0, 255) for c in rgb
    ):
        raise BadArgument(f"A colour is three numbers from 0 to 255, not {quoted(colour, 60)}.")
    dim = checked_opacity(dim)
    width = None if width is None else checked_pixels(width, "The width of a line", _WIDEST_LINE)
    drawn = as_picture(picture).copy()
    height, wide = drawn.shape[:2]
    inside = as_heat(mask) > 0.5
    inside = cv2.resize(inside.astype(np.float32), (wide, height), interpolation=cv2.INTER_LINEAR) > 0.5
    if dim > 0:
        drawn[~inside] = np.rint(drawn[~inside] * (1 - dim)).astype(np.uint8)
    if width is None:
        width = max(1, round(min(height, wide) / 160))
    edges, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    halo = 2 * max(1, round(width * 0.75))
    cv2.drawContours(drawn, edges, -1, (16, 16, 20), width + halo, cv2.LINE_AA)
    cv2.drawContours(drawn, edges, -1, tuple(float(c) for c in rgb), width, cv2.LINE_AA)
    return drawn


def enlarged(picture: ArrayLike | Image.Image, least: int, how: Enlarge = "lanczos") -> Picture:
    """The picture by a whole factor so large that its shorter side has at least `least` pixels (never smaller).

    A long picture grows only as far as its longer side stays within `LONGEST_ENLARGED`.

    Raises:
        BadArgument: no picture, no number of pixels, or no such way.
    """
    base, least = as_picture(picture), checked_pixels(least, "least", 2**31 - 1)
    factor = min(-(-least // min(base.shape[:2])), max(1, LONGEST_ENLARGED // max(base.shape[:2])))
    how = checked_enlarge(how)
    if factor <= 1:
        return base
    kind = cv2.INTER_NEAREST if how == "nearest" else cv2.INTER_LANCZOS4
    size = (base.shape[1] * factor, base.shape[0] * factor)
    return np.asarray(cv2.resize(base, size, interpolation=kind), dtype=np.uint8)


def checked_enlarge(how: Enlarge) -> Enlarge:
    """How a picture grows. Raises BadArgument for another way."""
    if not isinstance(how, str) or how not in ("nearest", "lanczos"):
        raise BadArgument(f"A picture is enlarged by 'nearest' or 'lanczos', not {quoted(how)}.")
    return how


# -- parts -----------------------------------------------------------------------------------------------------------


def as_picture(picture: ArrayLike | Image.Image) -> Picture:
    """Anything that is a picture -> uint8 `[H, W, 3]`. Raises BadArgument."""
    if isinstance(picture, Image.Image):
        picture = rgb_pixels(picture)
    found = _array(picture, "A picture is uint8 [H, W, 3] or a Pillow image")
    if found.ndim == 2:
        found = np.repeat(found[..., None], 3, axis=2)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] not in (3, 4) or 0 in found.shape:
        raise BadArgument(f"A picture is uint8 [H, W, 3], but this is {found.dtype} {list(found.shape)}.")
    return np.ascontiguousarray(found[..., :3])


def _array(given: ArrayLike | TensorLike, what: str) -> NDArray[Any]:
    """An array or tensor as an array. Raises BadArgument for what is none; `what` it is to be begins the sentence."""
    try:
        if not isinstance(given, np.ndarray) and hasattr(given, "detach"):
            given = given.detach().cpu()
            # NumPy knows no bfloat16.
            given = given.float().numpy() if getattr(given, "is_floating_point", lambda: True)() else given.numpy()
        return np.asarray(given)
    except Exception:  # NumPy's own, torch's, and those of other libraries
        raise BadArgument(f"{what}, not {quoted(given, 60)}.") from None


def as_heat(heat: Heat) -> Floats:
    """Anything that is a map -> finite float32 `[h, w]`: NaN becomes 0, infinity the largest finite value."""
    found = _array(heat, "A heat map is numbers of [h, w]")
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "fiub":
        raise BadArgument(f"A heat map is numbers of [h, w], but this is {found.dtype} {list(found.shape)}.")
    found = found.astype(np.float32)
    if np.isfinite(found).all():
        return found
    finite = found[np.isfinite(found)]
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    return np.nan_to_num(found, nan=0.0, posinf=largest, neginf=-largest).astype(np.float32)


def fit_heat(heat: Floats, size: tuple[int, ...]) -> Floats:
    """The map at a picture's (height, width): bicubic upwards, averages downwards."""
    height, width = size
    if heat.shape == (height, width):
        return heat
    shrinks = height < heat.shape[0] and width < heat.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(heat, (width, height), interpolation=kind), dtype=np.float32)


def relative(heat: Floats, top: float | None = None) -> Floats:
    """Heat as a share 0..1 of the top; all zero where the map is the same everywhere or there is no heat."""
    low, high = float(heat.min()), float(heat.max())
    even = high - low <= 1e-6 * max(abs(high), abs(low))
    top = checked_top(top)
    top = high if top is None else top
    if top <= 0 or (even and top <= high):
        return np.zeros_like(heat)
    return np.clip(heat / np.float32(top), 0, 1)


def checked_opacity(opacity: float) -> float:
    if not isinstance(opacity, Real) or not 0 <= opacity <= 1:
        raise BadArgument(f"An opacity lies between 0 and 1, not at {quoted(opacity, 40)}.")
    return float(opacity)


def blend(ground: Background, colours: Picture, strength: Floats, opacity: float) -> Picture:
    """Picture and colours `[H, W, 3]` by `strength` 0..1 `[H, W]`, all of it scaled by `opacity`."""
    full = np.float32(0.86 * opacity) * strength
    drawn = np.empty_like(ground.picture)
    # Channel by channel: whole planes of numbers, which stay in the cache, are much faster than triples.
    for channel in range(3):
        plane = ground.picture[..., channel].astype(np.float32)
        mixed = colours[..., channel] + ground.relief
        mixed -= plane
        mixed *= full
        mixed += plane
        drawn[..., channel] = np.rint(np.clip(mixed, 0, 255, out=mixed), out=mixed)
    return drawn


def _ground(picture: ArrayLike | Image.Image | Background) -> Background:
    return picture if isinstance(picture, Background) else background_of(picture)


def _relief(light: Floats) -> Floats:
    """The picture's edges and inner drawing as light and shade around 0."""
    sigma = max(1.0, min(light.shape) / 24)
    relief = light - cv2.GaussianBlur(light, (0, 0), sigma)
    return np.asarray(np.clip(0.6 * relief, -70, 60), dtype=np.float32)


def _strength(share: Floats) -> Floats:
    """How much of the colour shows, 0..1: none at the map's floor, all of it near the top."""
    lowest = np.partition(share, share.size // 20, axis=None)[share.size // 20]
    floor = FLOOR * float(lowest)
    contrast = 1 - float(lowest) / max(float(share.max()), 1e-12)
    return _smoothstep((share - floor) / (1 - floor)) * np.float32(min(1.0, contrast / CONTRAST))


def _smoothstep(share: Floats) -> Floats:
    t = share - np.float32(RISE[0])
    t *= np.float32(1 / (RISE[1] - RISE[0]))
    np.clip(t, 0, 1, out=t)
    smooth = t * np.float32(-2)
    smooth += 3
    smooth *= t
    smooth *= t
    return smooth
