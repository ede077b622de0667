"""`daam-lens tiny …`: train, evaluate, export and draw the embedded models.

Only argparse is imported at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument, quoted
from ..files import typed_path, writing

if TYPE_CHECKING:
    # Any: the caller's parser class
    Subparsers = argparse._SubParsersAction[Any]

MOST_DRAWN = 400
"""Scenes on one sheet."""


def add_commands(commands: Subparsers) -> None:
    """Add `train`, `train-transformer`, `evaluate`, `export` and `draw` to the subparsers of `daam-lens tiny`.

    Each parsed namespace has `run`: a function of it that returns 0. What the user caused is raised as
    `DaamLensError`; the caller prints it and exits with 2.
    """
    _add_train(commands)
    _add_train_transformer(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_draw(commands)


def _add_train(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "train",
        help="train the model from nothing (about 4 hours on 2 CPU cores)",
        description="Train text encoder, autoencoder, UNet and segmenter from nothing. May be stopped at any time: "
        "the same command goes on where it was.",
    )
    parser.add_argument("--work", type=typed_path, required=True, help="folder for states and caches (about 600 MB)")
    parser.add_argument(
        "--images", type=int, help="pictures the UNet sees in this WORK, those before a stop included (default 660000)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiply every budget; 0.001 tries the machinery")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="stages to run (default: all that are unfinished)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    parser.add_argument(
        "--from-shipped",
        action="store_true",
        help="start an empty WORK from the weights in the package; the UNet goes on from them (default 200000 images)",
    )
    parser.add_argument("--scenes", type=int, metavar="N", help="different scenes that the UNet sees (default 36000)")
    _add_where(parser)
    parser.set_defaults(run=_train)


def _add_train_transformer(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "train-transformer",
        help="train the transformer inside from nothing, under the UNet's text encoder and autoencoder",
        description="Train the joint-attention transformer on the same world. May be stopped at any time: the same command "
        "goes on where it was.",
    )
    parser.add_argument("--work", type=typed_path, required=True, help="folder for state and cache (about 250 MB)")
    parser.add_argument("--images", type=int, help="pictures seen in this WORK, those before a stop included (default 400000)")
    parser.add_argument("--scenes", type=int, metavar="N", help="different scenes that it sees (default 24000)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply both budgets; 0.001 tries the machinery")
    parser.add_argument(
        "--from-shipped", action="store_true", help="start an empty WORK from the transformer in the package, not from nothing"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile: minutes to begin with, a tenth faster then")
    _add_where(parser)
    parser.set_defaults(run=_train_transformer)


def _add_where(parser: argparse.ArgumentParser) -> None:
    """What a training run of either model takes."""
    parser.add_argument("--out", type=typed_path, help="where the finished model goes (default: WORK/weights)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--pause", type=typed_path, metavar="FILE", help="stand still while this file exists")


def _add_evaluate(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="draw 200 pictures a split and let the segmenter judge them",
        description="Measure the model: right nouns in right colours on four sets of prompts, reconstruction by the "
        "autoencoder. Writes evaluation.json and contact sheets.",
    )
    parser.add_argument("--out", type=typed_path, default=Path("tiny-evaluation"), help="folder for figures and sheets")
    parser.add_argument("--count", type=int, default=200, help="pictures a split (default 200)")
    parser.add_argument("--weights", type=typed_path, help="folder that 'tiny train' made (default: the embedded model)")
    parser.add_argument(
        "--kind", choices=("unet", "transformer"), default="unet", help="which of the two models (default unet)"
    )
    parser.add_argument("--side", type=int, default=128, help="pictures' side in pixels, 128 (default) or 256")
    parser.add_argument("--exact", action="store_true", help="compute in float32 also where bfloat16 is faster")
    parser.set_defaults(run=_evaluate)


def _add_export(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "export",
        help="write the model as ComfyUI and the WebUIs read it",
        description="Write a single-file checkpoint with its yaml, TAESD files for the autoencoder, and the tokenizer.",
    )
    parser.add_argument("folder", type=typed_path, help="where the files go")
    parser.add_argument("--vocab", type=typed_path, help="the host's own CLIP vocab.json: re-index the words to it")
    parser.set_defaults(run=_export)


def _add_draw(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "draw",
        help="draw scenes of the world by code, as the model was shown them",
        description="Draw training scenes with their captions on one contact sheet.",
    )
    parser.add_argument("out", type=typed_path, help="picture to write, for example world.png")
    parser.add_argument("--count", type=int, default=48, help="number of scenes (default 48)")
    parser.add_argument("--seed", type=int, default=0, help="which world (default 0; training uses 1)")
    parser.add_argument("--style", choices=("flat", "shaded"), default="flat", help="flat art, or light and shadow")
    parser.add_argument("--masks", action="store_true", help="show the exact masks instead")
    parser.set_defaults(run=_draw)


def _print_line(text: str) -> None:
    print(text, flush=True)


def _train(args: argparse.Namespace) -> int:
    from .train import STAGES, Settings, train, with_fast_malloc

    _check_device(args.device)
    if args.scale <= 0:
        raise BadArgument(f"--scale must be above 0, got {args.scale}.")
    with_fast_malloc(sys.orig_argv[1:])
    only = tuple(args.only) if args.only else STAGES
    settings = Settings(
        work=args.work,
        out=args.out,
        device=args.device,
        images=args.images,
        scale=args.scale,
        only=only,
        compiled=not args.no_compile,
        from_shipped=args.from_shipped,
        scenes=args.scenes,
        pause=args.pause,
    )
    train(settings, _print_line)
    return 0


def _train_transformer(args: argparse.Namespace) -> int:
    from .train import with_fast_malloc
    from .transformer_train import TransformerSettings, train_transformer

    _check_device(args.device)
    settings = TransformerSettings(
        work=args.work,
        out=args.out,
        device=args.device,
        images=args.images,
        scenes=args.scenes,
        scale=args.scale,
        compiled=args.compile,
        from_shipped=args.from_shipped,
        pause=args.pause,
    )
    settings.check()
    with_fast_malloc(sys.orig_argv[1:])
    train_transformer(settings, _print_line)
    return 0


def _check_device(device: str) -> None:
    import torch

    if device.split(":")[0] not in ("cpu", "cuda"):
        raise BadArgument(f"--device must be cpu or cuda, got {quoted(device)}.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadArgument("--device cuda was asked for, but torch sees no CUDA device here.")


def _evaluate(args: argparse.Namespace) -> int:
    from .evaluate import evaluate
    from .load import load_segmenter, load_tiny

    pipe, judge = load_tiny(args.kind, weights=args.weights), load_segmenter(weights=args.weights)
    evaluate(pipe, judge, args.out, _print_line, args.count, fast=not args.exact, side=args.side)
    _print_line(str(args.out.resolve()))
    return 0


def _export(args: argparse.Namespace) -> int:
    from .export import export

    for path in export(args.folder, args.vocab):
        _print_line(str(path.resolve()))
    return 0


def _draw(args: argparse.Namespace) -> int:
    from PIL import Image

    from ..picture_files import ENDINGS
    from ..render.captioned_sheet import captioned_sheet
    from .scenes import mask_picture, scene_at

    if not 1 <= args.count <= MOST_DRAWN:
        raise BadArgument(f"--count must be a number from 1 to {MOST_DRAWN}, got {args.count}.")
    if args.seed < 0:
        raise BadArgument(f"--seed must be at least 0, got {args.seed}.")
    if args.out.suffix.lower() not in ENDINGS:
        raise BadArgument(f"{args.out} is no name of a picture; give one that ends with {', '.join(ENDINGS)}.")
    scenes = [scene_at(args.seed, k, style=args.style) for k in range(args.count)]
    pictures = [Image.fromarray(mask_picture(s) if args.masks else s.image) for s in scenes]
    with writing(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        captioned_sheet(pictures, [s.caption for s in scenes]).save(args.out)
    _print_line(str(args.out.resolve()))
    return 0
