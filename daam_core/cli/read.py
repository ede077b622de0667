"""`daam-lens read`: the words of a picture that was not made here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument
from ..files import file_name, relative_path, writable_folder, write_png
from ..prompt.concepts import concepts_of
from ..validate import IN_THE_PICTURE, checked_prompt
from .commands import check_names, check_typed_words, check_words, chosen_words, kept_axes, quiet_warnings
from .parts import Written, write_parts

if TYPE_CHECKING:
    from ..maps.heatmaps import HeatMaps


def read(args: argparse.Namespace) -> None:
    """A picture, and where each word of a prompt stands in it; or a folder of pictures, and where labels are in them."""
    if Path(args.picture).is_dir() or args.labels is not None:
        return _read_folder(args)
    if args.prompt is None and not args.concepts:
        raise BadArgument('Say what is in the picture: --prompt "a red house". For a folder of pictures, give --labels.')
    if args.concepts:
        concepts_of(args.concepts)
    prompt = checked_prompt(", ".join(args.concepts) if args.prompt is None else args.prompt, wanted=IN_THE_PICTURE)
    # Everything that can be wrong is looked at before anything heavy starts.
    check_typed_words(prompt, args.words or ())
    check_names(args)
    from ..picture_files import load_picture

    picture = load_picture(args.picture)
    folder = writable_folder(args.out or Path("daam-lens-out", file_name(Path(args.picture).stem)))
    maps = _read(picture, prompt, args)
    done = Written([write_png(folder / "picture.png", picture)] if "picture" in args.save else [])
    if "record" in args.save:
        done.paths.append(maps.save(folder / "record.safetensors"))
    write_parts(maps, [*chosen_words(maps, args.words), *maps.concepts], folder, args, done)
    for line in [*map(relative_path, done.paths), *done.notes]:
        print(line)


def _read_folder(args: argparse.Namespace) -> None:
    if not Path(args.picture).is_dir():
        raise BadArgument(f"--labels is for a folder of pictures, and {args.picture} is none. For one picture, give --prompt.")
    if args.aggregation != "sum" or args.output_space:
        raise BadArgument("A folder of pictures is read by Eq. 6: leave out --aggregation and --output-space.")
    if args.labels is None or args.prompt is not None or args.concepts:
        raise BadArgument("A folder of pictures takes --labels (what is in them) and no --prompt.")
    check_names(args)
    from ..studies.label_folder import label_folder

    with quiet_warnings():
        for path in label_folder(args):
            print(relative_path(path))


def _read(picture: Any, prompt: str, args: argparse.Namespace) -> HeatMaps:
    from ..diffusers.loading import load_pipeline
    from ..diffusers.reading import read_picture

    with quiet_warnings():
        pipe = load_pipeline(args.model, args.device)
        if args.prompt is not None:
            check_words(pipe, prompt, args.words)
        pipe.set_progress_bar_config(desc="reading", unit="level", leave=True)
        return read_picture(
            pipe, picture, args.prompt or "", concepts=args.concepts, noise=args.noise, samples=args.samples, seed=args.seed,
            size=args.size, keep=kept_axes(args), output_space=args.output_space,
            aggregation=args.aggregation,
        )  # fmt: skip
