"""`daam-lens study NAME …`: the options that all studies share, and running one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..cli.argument_types import device_argument, model_argument, number_argument, size_argument, whole_argument
from ..files import relative_path, typed_path
from .registry import STUDIES, load_study
from .study import Study


def add_commands(commands: Any, asked: Sequence[str] = ()) -> None:
    """Add all studies to the subparsers of `daam-lens study`, with the options of those that are asked for."""
    for name, entry in STUDIES.items():
        parser = commands.add_parser(name, help=entry.help, description=entry.help)
        # The packages of the extra `study` are needed for the one that is asked for alone; the list of all needs none.
        if name in asked:
            study = load_study(name)
            _add_common(parser)
            study.add_options(parser)
            parser.set_defaults(run=_runner(study))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=model_argument,
        default="tiny",
        metavar="NAME",
        help="tiny (the model inside, default), tiny-transformer (the other one: words and picture in one attention), a folder "
        "in diffusers' format, or a name on the Hugging Face hub",
    )
    parser.add_argument("--out", type=typed_path, required=True, metavar="DIR", help="folder for report, rows and plots")
    parser.add_argument(
        "--prompts", type=typed_path, metavar="FILE", help="prompts, one a line, UTF-8 (default: the study's own)"
    )
    parser.add_argument("--seeds", type=whole_argument(1), default=1, metavar="N", help="pictures a prompt (default: 1)")
    parser.add_argument("--limit", type=whole_argument(1), metavar="N", help="at most so many prompts (of each kind)")
    parser.add_argument(
        "--first-seed", type=whole_argument(0), default=0, metavar="N", help="seeds count from here (default: 0)"
    )
    parser.add_argument(
        "--aggregation",
        choices=("sum", "castorini", "output", "anchor"),
        default="sum",
        help="heat maps by the paper's Eq. 6 (default), by the rule of the castorini/daam package, or in output space",
    )
    parser.add_argument(
        "--device", type=device_argument, metavar="NAME", help="cpu, cuda, mps (default: cuda where there is one, else cpu)"
    )
    parser.add_argument("--steps", type=whole_argument(1), help="sampling steps (default: the model's own)")
    parser.add_argument("--guidance", type=number_argument(0), help="guidance scale (default: the model's own)")
    parser.add_argument("--size", type=size_argument, metavar="HxW", help="picture size (default: the model's own)")
    parser.add_argument(
        "--threads",
        type=whole_argument(1),
        default=1,
        help="CPU threads of a process; more than 1 may change the last digits of the rows (default: 1)",
    )


def _runner(study: Study) -> Any:
    def run(options: argparse.Namespace) -> None:
        from .runner import run_study

        for path in run_study(study, options):
            print(relative_path(path))

    return run
