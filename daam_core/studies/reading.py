"""At which levels of noise a model reads a picture best: chosen on scenes of its own world, reported on others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ..cli.argument_types import whole_argument
from ..defaults import DEFAULT_NOISE
from ..diffusers.reading import read_picture
from ..maps.heatmaps import HeatMaps
from ..tiny.shapes import NOUNS
from .cross_validation import CHOOSING, REPORTING, half_of
from .mask_bed_scenes import bed_scene
from .report import Report, Table, Text
from .scoring import scores
from .statistics import mean_interval
from .study import Found, Measured, Row, Study, Unit

if TYPE_CHECKING:
    from .model_runner import ModelRunner

OWN = ("own world, flat", "own world, shaded")
"""Scenes of the kind that the model inside was trained on, held out by their seed: to choose on."""
OTHERS = ("flat", "photo-like", "textured", "touching two colours", "thin")
"""Kinds of the bed of masks, with silhouettes and grounds of their own: to report on."""
GOALS = {"own world, flat": 0.90, "flat": 0.90, "photo-like": 0.75}
SINGLE: tuple[tuple[int, ...], ...] = ((800,), (500,), (300,), (200,), (100,), (50,), (20,))
SETS: tuple[tuple[int, ...], ...] = (
    (900, 800, 700, 600, 500, 400, 300, 200, 100), (500, 300, 100), (300, 200, 100, 50), (100, 50, 20), (300, 100),
)  # fmt: skip
ASKED = ("its true caption", "its nouns", "all nouns")
"""What a scene is asked for: its caption; "a house, a tree" for what is in it; the same with the nouns that are not."""
SAMPLES = 4
"""How many noises a level are tried with the default levels."""
WORLD = 90_417
DEFAULT_SCENES = 12


class ReadingStudy(Study):
    """IoU of the default mask by levels of noise, on rendered scenes that are read with their true caption."""

    name = "reading"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--scenes", type=whole_argument(2), default=DEFAULT_SCENES, metavar="N", help="of each kind (default: %(default)s)"
        )

    def units(self, options: argparse.Namespace) -> list[Unit]:
        count = min(options.scenes, options.limit or options.scenes)
        return [
            Unit(f"{kind} {number:04d}", {"kind": kind, "number": number, "seed": options.first_seed + number})
            for kind in (*OWN, *OTHERS)
            for number in range(count)
        ]

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        kind, number = unit.content["kind"], unit.content["number"]
        image, caption, masks = _scene(kind, number)
        how = {"seed": unit.content["seed"], "size": options.size}
        rows: list[Row] = []
        for levels, samples in candidates():
            maps = read_picture(runner.pipe, image, caption, noise=levels, samples=samples, **how)
            rows += _scored(
                maps, masks, {"split": kind, "half": half_of(number), "asked": ASKED[0], "levels": label(levels, samples)}
            )
        for asked, nouns in ((ASKED[1], tuple(masks)), (ASKED[2], tuple(sorted({*masks, *NOUNS})))):
            maps = read_picture(runner.pipe, image, concepts=nouns, **how)
            rows += _scored(
                maps, masks, {"split": kind, "half": half_of(number), "asked": asked, "levels": label(DEFAULT_NOISE, 1)}
            )
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        if rows.empty:
            return Report("Reading", [Text("Not one mask could be scored.")])
        captioned = rows[rows["asked"] == ASKED[0]]
        means = chosen_by(captioned)
        best = str(means.index[0]) if len(means) else "-"
        text = (
            f"{rows.drop_duplicates(['unit', 'word']).shape[0]} objects in {rows['unit'].nunique()} rendered scenes, read with "
            f"their true caption; IoU of the default mask. On the choosing half of the model's own world {best} are the best "
            f"levels ({means.iloc[0]:.3f}); the default is {label(DEFAULT_NOISE, 1)} "
            f"({means.get(label(DEFAULT_NOISE, 1)):.3f}). On the reporting half's other shapes these have "
            f"{_reported(captioned, best)} and {_reported(captioned, label(DEFAULT_NOISE, 1))}, for {_passes(best)} passes a "
            f"picture and {len(DEFAULT_NOISE)}."
        )
        return Report(
            "Reading",
            [Text(text), _levels_table(captioned, means), _goal_table(captioned), _asked_table(rows)],
            facts={"best": best},
        )


def _scored(maps: HeatMaps, masks: dict[str, Tensor], about: Row) -> list[Row]:
    """A row a noun: the default mask's scores, and the IoU of late heat at the default level, which nothing is snapped to."""
    rows: list[Row] = []
    for word, truth in masks.items():
        if word in maps:
            late = scores(maps.mask(word, "late"), truth)["iou"]
            rows.append({**about, "word": word, **scores(maps.mask(word), truth), "late_iou": late})
    return rows


def candidates() -> list[tuple[tuple[int, ...], int]]:
    """(levels, samples) that are tried."""
    return [*((levels, 1) for levels in (*SINGLE, *SETS)), (DEFAULT_NOISE, SAMPLES)]


def label(levels: Sequence[int], samples: int) -> str:
    return ", ".join(map(str, levels)) + (f" ({samples} noises)" if samples > 1 else "")


def chosen_by(rows: pd.DataFrame) -> Any:
    """Mean IoU of each candidate on the choosing half of the model's own world, its kinds counted equally; the best first."""
    half = rows[(rows["half"] == CHOOSING) & rows["split"].isin(OWN)]
    by_kind = half.groupby(["levels", "split"])["iou"].mean()
    return by_kind.groupby(level="levels").mean().sort_values(ascending=False, kind="stable")


def _reported(rows: pd.DataFrame, levels: str) -> str:
    """Mean IoU of some levels on the reporting half of other shapes, with its interval over scenes."""
    there = rows[(rows["half"] == REPORTING) & (rows["levels"] == levels) & rows["split"].isin(OTHERS)]
    return str(mean_interval(there["iou"], there["unit"])) if len(there) else "-"


def _passes(levels: str) -> int:
    return next((len(found) * samples for found, samples in candidates() if label(found, samples) == levels), 0)


def _levels_table(rows: pd.DataFrame, means: Any) -> Table:
    reported = rows[rows["half"] == REPORTING]
    lines = []
    for levels in [label(*candidate) for candidate in candidates()]:
        line: dict[str, object] = {"levels": levels, "chosen by": means.get(levels)}
        mine = reported[reported["levels"] == levels]
        for kind in (*OWN, "photo-like"):
            there = mine[mine["split"] == kind]
            line[kind] = None if there.empty else there["iou"].mean()
        others = mine[mine["split"].isin(OTHERS)]
        line["late heat, own world"] = mine[mine["split"].isin(OWN)]["late_iou"].mean()
        line["late heat, other shapes"] = others["late_iou"].mean()
        line["all of other shapes"] = str(mean_interval(others["iou"], others["unit"])) if len(others) else "-"
        lines.append(line)
    caption = (
        "Levels of noise in thousandths. “Chosen by” is the choosing half of the model's own world; the other columns are the "
        "reporting half, the last ones scenes of shapes and grounds that the model never saw, with 95 % intervals over scenes. "
        "“Late heat” is the IoU of the method `late` at 0.4, which is not snapped to the picture."
    )
    return Table("Mean IoU of the default mask by levels of noise", pd.DataFrame(lines), caption)


def _asked_table(rows: pd.DataFrame) -> Table:
    mine = rows[rows["levels"] == label(DEFAULT_NOISE, 1)]
    lines = []
    for asked in ASKED:
        line: dict[str, object] = {"prompt": asked}
        for name, kinds in (("own world", OWN), ("other shapes", OTHERS)):
            there = mine[(mine["asked"] == asked) & mine["split"].isin(kinds)]
            line[f"{name}, default mask"] = str(mean_interval(there["iou"], there["unit"])) if len(there) else "-"
            line[f"{name}, late heat"] = there["late_iou"].mean()
        lines.append(line)
    caption = (
        "The default levels, both halves: with words for what is not in the picture, these take places from those that are."
    )
    return Table("By what the picture is asked for", pd.DataFrame(lines), caption)


def _goal_table(rows: pd.DataFrame) -> Table:
    reported = rows[(rows["half"] == REPORTING) & (rows["levels"] == label(DEFAULT_NOISE, 1))]
    lines = []
    for kind in (*OWN, *OTHERS):
        there = reported[reported["split"] == kind]
        goal = GOALS.get(kind)
        reached = "-" if goal is None or there.empty else "yes" if there["iou"].mean() >= goal else "no"
        mean = str(mean_interval(there["iou"], there["unit"])) if len(there) else "-"
        lines.append({"scenes": kind, "IoU": mean, "goal": "-" if goal is None else f">= {goal:.2f}", "reached": reached})
    caption = "On the reporting half, with 95 % intervals over scenes."
    return Table("The default levels by kind of scene", pd.DataFrame(lines), caption)


def _scene(kind: str, number: int) -> tuple[Any, str, dict[str, Tensor]]:
    """Picture, caption and exact masks."""
    if kind not in OWN:
        scene = bed_scene(kind, number)
        return scene.image, scene.caption, {noun: torch.from_numpy(mask) for noun, mask in scene.masks.items()}
    from ..tiny.scenes import scene_at

    drawn = scene_at(WORLD, number, two=0.5, style="flat" if kind == OWN[0] else "shaded")
    return drawn.image, drawn.caption, {one.noun: torch.from_numpy(one.mask) for one in drawn.objects}
