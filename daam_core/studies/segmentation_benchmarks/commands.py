"""`daam-lens benchmark NAME …`: published benchmarks of segmentation on the user's own copy of a data set."""

from __future__ import annotations

import argparse
from typing import Any

from ...cli.argument_types import device_argument, model_argument, whole_argument
from ...files import relative_path, typed_path

BENCHMARKS = {
    "imagenet-segmentation": "4276 pictures of one class each, class against background (protocol of ConceptAttention)",
    "voc": "PASCAL VOC 2012, 20 classes",
    "coco-object": "COCO 2017, 80 kinds of objects and background",
}


def add_commands(commands: Any, asked: str = "") -> None:
    """Add the benchmarks to the subparsers of `daam-lens benchmark`, with the options of the one that is asked for."""
    for name, text in BENCHMARKS.items():
        parser = commands.add_parser(name, help=text, description=f"{text}. Nothing is downloaded.")
        if name == asked:
            _add(parser, name)


def _add(parser: argparse.ArgumentParser, name: str) -> None:
    from ..registry import PACKAGES, need_packages

    need_packages([*PACKAGES, "torchmetrics", "pycocotools"], "benchmark", "Benchmarks need")
    from .benchmark import SegmentationBenchmark

    benchmark = SegmentationBenchmark(name)
    parser.add_argument("--out", type=typed_path, required=True, metavar="DIR", help="folder for report, rows and run.json")
    parser.add_argument(
        "--model", type=model_argument, default="tiny", metavar="NAME",
        help="tiny (the model inside, default), tiny-transformer (the other one), a folder in diffusers' format, or a name on "
        "the Hugging Face hub",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=device_argument, metavar="NAME", help="cpu, cuda, mps (default: cuda where there is one, else cpu)"
    )
    parser.add_argument("--limit", type=whole_argument(1), metavar="N", help="at most so many pictures")
    parser.add_argument("--threads", type=whole_argument(1), default=1, help="CPU threads of a process (default: 1)")
    benchmark.add_options(parser)
    # What studies ask beside: a picture is not painted here.
    parser.set_defaults(
        run=_runner(benchmark), prompts=None, seeds=1, first_seed=0, aggregation="sum", steps=None, guidance=None
    )


def _runner(benchmark: Any) -> Any:
    def run(options: argparse.Namespace) -> None:
        from ..runner import run_study

        for path in run_study(benchmark, options):
            print(relative_path(path))

    return run
