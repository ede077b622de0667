"""Pictures with masks in a folder: the user's own, or an experiment of the castorini/daam package.

Two layouts are understood, told apart by their files:

- Your own: `NAME.png` (or .jpg, .jpeg, .webp), its prompt in `NAME.txt`, and for each marked word `NAME.WORD.png`, white
  where the word is. The picture is noised and denoised one step at each of nine noise levels, with its prompt.
- castorini/daam's: a folder a picture with `prompt.txt`, `seed.txt`, masks `WORD.gt.png` (opaque where the word is) and often
  `output.png`. The picture is painted again from prompt and seed; with `--route denoised` the stored `output.png` is taken as
  it is.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..diffusers.trace import KeptAxis
from ..errors import BadArgument
from ..opencv import cv2
from ..picture_files import load_mask, load_picture
from .files import read_prompts
from .model_runner import ModelRunner, Sample
from .study import Unit

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
GROUND_TRUTH = ".gt.png"
Pixels = NDArray[np.uint8]


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--route",
        choices=("painted", "denoised"),
        default="painted",
        help="of a castorini/daam folder: paint again from prompt and seed (default), or noise and denoise its output.png",
    )
    parser.add_argument(
        "--noise-from",
        choices=("cpu", "device"),
        default="cpu",
        help="where the first noise is drawn; castorini/daam drew it on its card: `device` there (default: cpu)",
    )


def folder_units(options: argparse.Namespace) -> list[Unit]:
    """One unit a picture, in order of their names.

    Raises:
        BadArgument: no picture with a mask, or one without prompt or seed; the text says what was looked for.
    """
    folder = Path(options.truth)
    if options.prompts is not None:
        raise BadArgument("Pictures in a folder have prompts of their own: leave out --prompts.")
    experiments = sorted({path.parent for path in folder.rglob(f"*{GROUND_TRUTH}")})
    found = [_experiment(path, options.route) for path in experiments] or _own(folder)
    if not found:
        raise BadArgument(
            f"There is no picture with a mask in {folder}: neither NAME.png with NAME.txt and NAME.WORD.png, nor folders with "
            "prompt.txt, seed.txt and WORD.gt.png."
        )
    units = []
    for number, content in enumerate(found[: options.limit]):
        key = Path(content["folder"]).joinpath(content["name"]).relative_to(folder).as_posix()
        units.append(Unit(key, {**content, "truth": "folder", "split": "folder", "number": number}))
    return units


def observe(
    content: Mapping[str, Any],
    runner: ModelRunner,
    options: argparse.Namespace,
    *,
    keep: Sequence[KeptAxis],
) -> tuple[Sample, dict[str, Tensor], float | None]:
    """The recorded picture, masks by word at its size, and how far it is from the stored picture (0..255, mean)."""
    folder = Path(content["folder"])
    stored = None if content["picture"] is None else load_picture(folder / content["picture"])
    difference = None
    if content["route"] == "painted":
        sample = runner.picture(content["prompt"], content["seed"], keep=keep, noise_from=options.noise_from)
        if stored is not None and stored.shape == sample.image.shape:
            difference = round(float(np.abs(stored.astype(np.int16) - sample.image).mean()), 3)
    else:
        assert stored is not None
        sample = runner.denoised(fitted(stored), content["prompt"], content["seed"], keep=keep)
    masks = {word: read_mask(folder / file, sample.image.shape[:2]) for word, file in content["masks"].items()}
    return sample, masks, difference


def read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    """bool `[H, W]` of `size`: where a mask with transparency is opaque, else where it is bright. Raises BadArgument."""
    mask = load_mask(path)
    if mask.shape != size:
        mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
    return torch.from_numpy(mask.astype(bool))


def fitted(picture: Pixels) -> Pixels:
    """The picture with sides rounded down to multiples of 8, which every model here takes."""
    height, width = (max(8, side - side % 8) for side in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _experiment(folder: Path, route: str) -> dict[str, Any]:
    masks = {path.name.removesuffix(GROUND_TRUTH): path.name for path in sorted(folder.glob(f"*{GROUND_TRUTH}"))}
    prompt = _prompt_of(folder / "prompt.txt")
    picture = "output.png" if (folder / "output.png").is_file() else None
    if route == "denoised" and picture is None:
        raise BadArgument(f"{folder} has no output.png to denoise; use --route painted.")
    try:
        seed = int((folder / "seed.txt").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if route == "painted":
            raise BadArgument(f"{folder} has no seed.txt with a whole number; use --route denoised.") from None
        seed = 0
    return _content(folder, "", prompt, seed, picture, masks, route)


def _own(folder: Path) -> list[dict[str, Any]]:
    found = []
    for text in sorted(folder.rglob("*.txt")):
        name, here = text.stem, text.parent
        masks = {
            path.name[len(name) + 1 : -4]: path.name
            for path in sorted(here.iterdir())
            if path.name.startswith(f"{name}.") and path.name.endswith(".png") and len(path.name) > len(name) + 5
        }
        pictures = [f"{name}{ending}" for ending in PICTURES if (here / f"{name}{ending}").is_file()]
        if masks and pictures:
            found.append(_content(here, name, _prompt_of(text), 0, pictures[0], masks, "denoised"))
    return found


def _content(
    folder: Path, name: str, prompt: str, seed: int, picture: str | None, masks: dict[str, str], route: str
) -> dict[str, Any]:
    # The digest of the files tells a changed mask from the one that was measured.
    files = [folder / file for file in [*([picture] if picture else []), *masks.values()]]
    content = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    return {
        "folder": str(folder), "name": name, "prompt": prompt, "seed": seed, "picture": picture, "masks": masks,
        "route": route, "sha256": content,
    }  # fmt: skip


def _prompt_of(path: Path) -> str:
    return " ".join(read_prompts(path))
