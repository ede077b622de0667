"""Arguments of `daam-lens read`."""

from __future__ import annotations

import argparse

from ..defaults import DEFAULT_NOISE
from .argument_types import levels_argument, path_argument, size_argument, whole_argument, words_argument
from .shared_arguments import add_aggregation, add_saves, add_words


def add_read_arguments(p: argparse.ArgumentParser) -> None:
    """What is read, how, and what is written."""
    p.add_argument(
        "picture", type=path_argument, metavar="PICTURE",
        help="a picture file (PNG, JPEG, WebP, BMP, TIFF, GIF) of any size, or a folder of them",
    )  # fmt: skip
    p.add_argument("--prompt", help="of one picture: what is in it, in words that the model knows")
    p.add_argument(
        "--concepts", type=words_argument, metavar="WORDS",
        help="things to look for that the prompt does not name, with commas between; without a prompt, what is in the picture",
    )  # fmt: skip
    p.add_argument(
        "--labels", type=path_argument, metavar="LABELS",
        help="of a folder: what is in its pictures, with commas between; a .txt file with one label a line; or a .json file "
        "that names the labels of each picture. Writes label maps (PNG with a palette) and annotations.json in COCO's form",
    )  # fmt: skip
    p.add_argument(
        "--out", type=path_argument, metavar="DIR",
        help="folder to write into (default: daam-lens-out/PICTURE, or daam-lens-labels)",
    )  # fmt: skip
    add_noise_arguments(p)
    add_words(p)
    add_aggregation(p)
    p.add_argument(
        "--detail",
        choices=("none", "steps", "layers", "both"),
        default="none",
        help="keep noise levels (steps) or layers apart in the record, which grows (default: %(default)s)",
    )
    add_saves(p)
    p.set_defaults(negative=None, guidance=None)


def add_noise_arguments(p: argparse.ArgumentParser) -> None:
    """How a picture is shown to the model."""
    p.add_argument(
        "--noise", type=levels_argument, metavar="LEVELS", default=DEFAULT_NOISE,
        help="levels of noise in thousandths, 1 to 999, with commas between; the model takes one pass at each "
        f"(default: {','.join(map(str, DEFAULT_NOISE))})",
    )  # fmt: skip
    p.add_argument("--samples", type=whole_argument(1), default=1, help="noises a level (default: %(default)s)")
    p.add_argument("--seed", type=whole_argument(0), default=0, help="same seed, same noise (default: %(default)s)")
    p.add_argument(
        "--size",
        type=size_argument,
        metavar="HxW",
        help="height x width at which the model reads, multiples of 8 (default: its own number of pixels, the picture's shape)",
    )
