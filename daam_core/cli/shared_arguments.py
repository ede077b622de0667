"""Arguments that several commands take, and the way from a parsed command to what runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from ..defaults import DEFAULT_OPACITY, DEFAULT_TAU
from .argument_types import (
    SAVES,
    device_argument,
    model_argument,
    number_argument,
    path_argument,
    relations_argument,
    saves_argument,
    words_argument,
)

_METHOD_HELP = (
    "how a heat map becomes a mask: best (the default), threshold (the paper's Eq. 7), late (Eq. 7 of late steps), "
    "otsu, compete (Eq. 7 less the places of other objects), walk (along self-attention), guided or grabcut (compete, "
    "snapped to the picture's edges)"
)


def add_record(p: argparse.ArgumentParser) -> None:
    p.add_argument("record", type=path_argument, metavar="RECORD", help="a .safetensors record that `generate` wrote")


def add_model(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        type=model_argument,
        default="tiny",
        metavar="NAME",
        help="tiny (the model inside, default), tiny-transformer (the other one: words and picture in one attention), a folder "
        "in diffusers' format, or a name on the Hugging Face hub",
    )
    p.add_argument(
        "--device", type=device_argument, metavar="NAME", help="cpu, cuda, mps (default: cuda where there is one, else cpu)"
    )


def add_method(p: argparse.ArgumentParser) -> None:
    p.add_argument("--method", default="best", metavar="NAME", help=_METHOD_HELP)
    p.add_argument(
        "--tau",
        type=number_argument(0, 1),
        default=DEFAULT_TAU,
        help="keep what is above this part of the maximum, 0 to 1; for all but best and otsu (default: %(default)s)",
    )


def add_aggregation(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--aggregation",
        default="sum",
        metavar="NAME",
        help="how heads, layers and steps make one map: sum (Eq. 6, the default), castorini (as the castorini/daam package), "
        "output (how far what the attention gives out agrees with the word) or anchor (with the word's own peak)",
    )
    p.add_argument(
        "--output-space",
        action="store_true",
        help="record what the attention gives out, too: the record then has output and anchor, and masks use it where there is "
        "no self-attention (output and anchor switch it on)",
    )


def add_colors(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--colormap",
        default="ember",
        metavar="NAME",
        help="colours of the heat: ember (the default), lagoon, gray, or one of OpenCV's: viridis, turbo, jet, inferno, …",
    )
    p.add_argument(
        "--opacity",
        type=number_argument(0, 1),
        default=DEFAULT_OPACITY,
        help="how strongly the colours cover the picture, 0 to 1 (default: %(default)s)",
    )


def add_words(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--words",
        type=words_argument,
        metavar="WORDS",
        help='words or phrases to look at, with commas between: "house,red house" (default: all but stop words)',
    )


def add_saves(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--save",
        type=saves_argument,
        default=SAVES,
        metavar="PARTS",
        help=f"what to write, with commas between (default: all of {','.join(SAVES)})",
    )


def add_relations(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--relations",
        type=relations_argument,
        default=(),
        metavar="NAMES",
        help="what else to record of transformers whose text and picture are one sequence, with commas between: text-to-image "
        "(where a word looks), text-to-text (which word leans on which), image-to-image (masks use it)",
    )


def add_encoder(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--encoder",
        metavar="NAME",
        help="of models that join the columns of several text encoders (SD3: CLIP, T5): words as this one read them "
        "(default: all together)",
    )


def command(name: str, module: str = ".commands") -> Callable[[argparse.Namespace], int | None]:
    def run(args: argparse.Namespace) -> int | None:
        result: int | None = getattr(import_module(module, __package__), name)(args)
        return result

    return run
