"""A published benchmark as a study: one picture a unit, counts of pixels as rows, scores of all of them as the report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...cli.read_arguments import add_noise_arguments
from ...defaults import DEFAULT_TAU
from ...diffusers.reading import read_picture
from ...errors import BadArgument
from ...files import typed_path
from ...maps.heatmaps import HeatMaps
from ...picture_files import load_picture
from ..report import Part, Report, Table, Text
from ..study import Found, Measured, Row, Study, Unit
from .layouts import CocoObject, DataSet, Example, ImageNetSegmentation, Labels, Voc
from .protocols import (
    BACKGROUND_WORDS,
    JUDGED_SIDE,
    PROTOCOLS,
    above_mean,
    hottest,
    judged_at,
    without_background,
)
from .tallies import average_precision, counts, iou_by_class, scores

if TYPE_CHECKING:
    from ..model_runner import ModelRunner

DATA_SETS: Mapping[str, type[DataSet]] = {
    "imagenet-segmentation": ImageNetSegmentation, "voc": Voc, "coco-object": CocoObject,
}  # fmt: skip
_DEFAULT_PROTOCOL = {"imagenet-segmentation": "concept-attention", "voc": "classes-given", "coco-object": "classes-given"}


class SegmentationBenchmark(Study):
    """One data set by one of the published protocols, see `protocols`."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=typed_path, required=True, metavar="DIR", help="your copy of the data set")
        parser.add_argument(
            "--protocol", choices=PROTOCOLS, default=_DEFAULT_PROTOCOL[self.name],
            help="concept-attention: a class against background words, above its own mean; classes-given: the classes of the "
            "picture, the hottest at each place (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--background", type=float, metavar="TAU", default=DEFAULT_TAU if self.name == "coco-object" else None,
            help="of classes-given: places below this share of the winner's range are background, which is judged then "
            "(default: 0.4 for coco-object; none for voc, whose background is not judged)",
        )  # fmt: skip
        add_noise_arguments(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        if options.background is not None and not 0 <= options.background <= 1:
            raise BadArgument(f"--background is a share from 0 to 1, not {options.background:g}.")
        data = data_set(self.name, options.data)
        found = data.examples()
        if options.protocol == "concept-attention":
            found = [example for example in found if len(example.classes) == 1]
        found = [example for example in found if example.classes][: options.limit]
        if not found:
            raise BadArgument(f"There is no picture in {options.data} that this protocol takes.")
        return [
            Unit(
                example.key,
                {
                    "picture": str(example.picture), "classes": list(example.classes),
                    "names": [data.classes[i - 1] for i in example.classes], "bytes": example.picture.stat().st_size,
                },
            )
            for example in found
        ]  # fmt: skip

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        data = data_set(self.name, options.data)
        example = Example(unit.key, Path(unit.content["picture"]), tuple(unit.content["classes"]))
        picture, truth = load_picture(example.picture), data.truth(example)
        if truth.shape != picture.shape[:2]:
            raise BadArgument(f"{example.picture} has {picture.shape[:2]} pixels, its true map {truth.shape}.")
        names: Sequence[str] = unit.content["names"]
        if options.protocol == "concept-attention":
            return Measured(self._class_against_background(picture, truth, names[0], runner, options))
        heats = heats_of(runner.pipe, picture, names, (truth.shape[0], truth.shape[1]), options)
        predicted = hottest(heats, example.classes, options.background)
        judged = truth if options.background is not None else without_background(truth)
        found = counts(predicted, judged, len(data.classes))
        shown = ["background", *data.classes]
        return Measured([_row(shown[i], one) for i, one in found.items()])

    def _class_against_background(
        self, picture: Any, truth: Labels, name: str, runner: ModelRunner, options: argparse.Namespace
    ) -> list[Row]:
        words = [name, *(word for word in BACKGROUND_WORDS[self.name] if word != name)]
        heats = heats_of(runner.pipe, picture, words, (JUDGED_SIDE, JUDGED_SIDE), options)
        if self.name == "imagenet-segmentation":
            predicted = above_mean(heats[0]).numpy().astype(np.int64)
        else:
            predicted = hottest(heats, [1, *(0 for _ in words[1:])])
        judged = judged_at(truth)
        judged = np.where((judged > 0) & (judged < 255), 1, judged)
        found = counts(predicted, judged, 1)
        precision = round(average_precision(heats[0], judged == 1), 6)
        return [_row("object" if i else "background", one, precision if i else None) for i, one in found.items()]

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        title = f"{self.name}, {options.protocol}"
        if found.rows.empty:
            return Report(title, [Text("Not one pixel could be judged.")])
        values = scores(found.rows)
        line: dict[str, object] = {"pictures": found.rows["unit"].nunique(), **{k: f"{v:.4f}" for k, v in values.items()}}
        parts: list[Part] = [
            Text(_what_was_done(self.name, options)),
            Table("Scores", pd.DataFrame([line]), "Of all pictures' pixels together; mAP is the mean of the pictures'."),
            Table("IoU by class", iou_by_class(found.rows)),
        ]
        return Report(title, parts, {}, {name: round(value, 6) for name, value in values.items()})


@lru_cache(maxsize=1)
def data_set(name: str, folder: Path) -> DataSet:
    """A data set in the user's folder. Raises BadArgument where it is not there."""
    if not folder.is_dir():
        raise BadArgument(f"There is no folder {folder}.")
    return DATA_SETS[name](folder)  # type: ignore[call-arg]


def heats_of(pipe: Any, picture: Any, labels: Sequence[str], size: tuple[int, int], options: argparse.Namespace) -> Tensor:
    """The heat of each label in a picture, float32 `[labels, H, W]`: all labels stand in one prompt."""
    maps: HeatMaps = read_picture(
        pipe, picture, concepts=labels, noise=options.noise, samples=options.samples, seed=options.seed, size=options.size
    )
    return torch.stack([maps.heat_map(label, size) for label in labels])


def _row(name: str, found: tuple[int, int, int], precision: float | None = None) -> Row:
    return {"class": name, "both": found[0], "true": found[1], "predicted": found[2], "ap": precision}


def _what_was_done(name: str, options: argparse.Namespace) -> str:
    if options.protocol == "concept-attention":
        how = (
            "what is hotter than the mean of the class's own map"
            if name == "imagenet-segmentation"
            else "the places where the class is hotter than every background word"
        )
        return (
            f"Pictures of one class. The labels are the class and {', '.join(BACKGROUND_WORDS[name])}; the mask is {how}, "
            f"judged at {JUDGED_SIDE} x {JUDGED_SIDE} pixels, class against background."
        )
    ground = (
        "places of no class are not judged"
        if options.background is None
        else f"places below {options.background:g} of the winner's range are background"
    )
    return (
        f"The labels are the classes that are in the picture; each place is the hottest's, {ground}. Judged at the picture's "
        "own size."
    )
