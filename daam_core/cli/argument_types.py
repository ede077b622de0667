"""Kinds of command-line arguments: from text to a value, or `argparse.ArgumentTypeError`, which becomes one sentence."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ..errors import DaamLensError, quoted
from ..validate import checked_device, checked_model

SAVES = ("picture", "overlays", "masks", "animation", "sheet", "relations", "report", "explorer", "record")
RELATIONS = ("image->text", "text->image", "text->text", "image->image")
"""Those of `types.Relation`, which would import NumPy."""


def whole_argument(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not a whole number") from None
        if not least <= value <= most:
            upper = "2^63 - 1" if most == 2**63 - 1 else most
            raise argparse.ArgumentTypeError(f"{text[:40]} is not a whole number from {least} to {upper}")
        return value

    return parse


def number_argument(least: float, most: float = float("inf")) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not a number") from None
        if not least <= value <= most or value == float("inf"):
            wanted = f"between {least:g} and {most:g}" if most < float("inf") else f"a number from {least:g} on"
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    return parse


def area_argument(text: str) -> tuple[float, str]:
    """An area and its unit: "20px" are pixels, "0.5%" is per cent of the picture, and so is a bare "0.5" (unit "")."""
    unit = next((unit for unit in ("px", "%") if text.lower().endswith(unit)), "")
    try:
        value = float(text[: len(text) - len(unit)])
    except ValueError:
        value = float("nan")
    if not 0 <= value <= (2**53 if unit == "px" else 100):
        told = f"{quoted(text)} is no area: per cent of the picture, as in 0.5, or pixels, as in 20px"
        raise argparse.ArgumentTypeError(told)
    return value, unit


def size_argument(text: str) -> tuple[int, int]:
    try:
        sides = [int(part) for part in text.lower().replace("×", "x").split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 8 or any(side % 8 for side in sides):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a size: height x width, multiples of 8, as in 512x768")
    return sides[0], sides[-1]


def region_argument(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a region: x,y,width,height, as in 32,32,64,64") from None
    return x, y, width, height


def frames_argument(text: str) -> tuple[int, ...] | str:
    """Frames of a video's maps: "0,3,-1"; "video" are those of the video itself."""
    if text.strip().lower() == "video":
        return "video"
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no list of frames, as in 0,3,-1, and not `video`") from None


def levels_argument(text: str) -> tuple[float, ...]:
    """Noise levels in thousandths: "300,200,100"."""
    try:
        levels = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        levels = ()
    if not levels or not all(1 <= level <= 999 for level in levels):
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no list of noise levels from 1 to 999, as in 300,200,100,50")
    return levels


def path_argument(text: str) -> str:
    """A path, whose "~" is the home folder also where a shell leaves it (`--out=~/maps`)."""
    return os.path.expanduser(text)


def words_argument(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("there is no word in it")
    return words


def saves_argument(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    if not wanted or (unknown := [part for part in wanted if part not in SAVES]):
        raise argparse.ArgumentTypeError(f"{quoted(unknown[0] if wanted else text)} is none of {', '.join(SAVES)}")
    return wanted


def relations_argument(text: str) -> tuple[str, ...]:
    """Relations, "text->image,text->text"; "to" stands for "->", which a shell takes for a file."""
    wanted = tuple(part.strip().replace("-to-", "->") for part in text.split(",") if part.strip())
    if not wanted or (unknown := [part for part in wanted if part not in RELATIONS]):
        named = ", ".join(name.replace("->", "-to-") for name in RELATIONS)
        hint = "; a shell takes > for a file, write -to-" if text.endswith("-") else ""
        raise argparse.ArgumentTypeError(f"{quoted(unknown[0] if wanted else text)} is none of {named}{hint}")
    return wanted


def model_argument(text: str) -> str:
    return _checked(checked_model, text)


def device_argument(text: str) -> str:
    return _checked(checked_device, text)


def _checked(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except DaamLensError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
