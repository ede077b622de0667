"""A runner that paints nothing: maps made up in code, so that a study's rows can be known beforehand."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from daam_core.studies.model_runner import ModelRunner, Sample
from daam_core.studies.runner import run_study
from daam_core.studies.study import Found, Measured, Row, Study, Unit

from ..web.samples import heat_maps

SIDE = 32


class StagedStudio:
    """Words get boxes of heat: `boxes[word]` is (top, left, bottom, right) of 32; words without one get no heat."""

    model = "tiny"

    def __init__(self, boxes: Mapping[str, tuple[int, int, int, int]], split: Callable[[str], list[str]] = str.split) -> None:
        self.boxes, self.split = boxes, split

    def picture(self, prompt: str, seed: int, **how: Any) -> Sample:
        words = self.split(prompt)
        maps = heat_maps(words, (SIDE, SIDE), ((SIDE, SIDE),), seed=seed)
        heat = torch.zeros(len(words) + 3, SIDE, SIDE)
        for i, word in enumerate(words, 1):
            if word in self.boxes:
                heat[i] = box(*self.boxes[word]).float()
        maps = maps.each_side(
            lambda side: dataclasses.replace(side, sums={(SIDE, SIDE): heat}, time_weighted={(SIDE, SIDE): heat})
        )
        assert maps.picture is not None
        return Sample(maps.picture, maps, None, "sum", prompt, seed)

    def as_runner(self) -> ModelRunner:
        return cast(ModelRunner, self)


def box(top: int, left: int, bottom: int, right: int) -> Tensor:
    """bool `[32, 32]`."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def options(study: Study, *arguments: str, out: Path | str = "unused") -> argparse.Namespace:
    """What the command line gives this study."""
    from daam_core.cli.parser import build_parser

    given = ["study", study.name, "--out", str(out), *arguments]
    return build_parser(given).parse_args(given)


def measured(study: Study, runner: ModelRunner, units: Sequence[Unit], given: argparse.Namespace, folder: Path) -> Found:
    """What the runner hands to `conclude`, without a model."""
    rows: list[Row] = []
    pictures: dict[tuple[str, str], Path] = {}
    for unit in units:
        one: Measured = study.measure(unit, runner, given)
        assert one == one and all(
            value is None or isinstance(value, (str, int, float, bool)) for row in one.rows for value in row.values()
        )
        rows += [{"unit": unit.key, **row} for row in one.rows]
        for name, picture in one.pictures.items():
            pictures[unit.key, name] = folder / f"{len(pictures)}.png"
            Image.fromarray(picture).save(pictures[unit.key, name])
    return Found(pd.DataFrame.from_records(rows), pictures, tuple(units))


def run(study: Study, out: Path, *arguments: str) -> dict[str, Path]:
    """The whole command; files by name."""
    return {path.name: path for path in run_study(study, options(study, *arguments, out=out))}


def grey(value: int) -> np.ndarray[Any, Any]:
    """uint8 `[32, 32, 3]`."""
    return np.full((SIDE, SIDE, 3), value, np.uint8)
