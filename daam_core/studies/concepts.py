"""How well a thing that the picture holds and the prompt does not name is found, and told from one that is not there.

Rendered scenes of two objects of which the prompt names one, with exact masks. A concept's mask is the default one; presence is
that of the same pass, and that by denoising error where it is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..diffusers.presence import presence_by_denoising
from ..errors import BadArgument
from ..tiny.shapes import NOUNS
from .cross_validation import CHOOSING, REPORTING, half_of
from .prompts import WORLD_SEED
from .report import Report, Table, Text
from .scoring import scores
from .statistics import mean_interval
from .study import Found, Measured, Row, Study, Unit

if TYPE_CHECKING:
    from .model_runner import ModelRunner

STYLES = ("flat", "shaded")
DEFAULT_SCENES = 40
SAME_PASS, BY_ERROR = "same pass", "denoising error"


class ConceptsStudy(Study):
    """IoU of what the prompt does not name beside what it names, and how well presence tells what is there."""

    name = "concepts"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--with-denoising", action="store_true", help="presence by denoising error, too: a row a concept and level"
        )

    def units(self, options: argparse.Namespace) -> list[Unit]:
        if options.prompts is not None:
            raise BadArgument("Rendered scenes have captions of their own: leave out --prompts.")
        units = []
        for style in STYLES:
            number = index = 0
            while number < (options.limit or DEFAULT_SCENES):
                things = [(one.noun, one.colour) for one in _scene(index, style).objects]
                if things[0][0] != things[1][0]:
                    named = number // 2 % 2
                    content = {"style": style, "number": number, "index": index, "named": named}
                    content["prompt"] = f"a {things[named][1]} {things[named][0]}"
                    units.append(Unit(f"{style} {number:05d}", content))
                    number += 1
                index += 1
        return units

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        content = unit.content
        scene = _scene(content["index"], content["style"])
        named, other = scene.objects[content["named"]], scene.objects[1 - content["named"]]
        concepts = [noun for noun in NOUNS if noun != named.noun]
        maps = runner.denoised(scene.image, content["prompt"], 1000 + content["index"], concepts=concepts).maps
        about: Row = {"style": content["style"], "half": half_of(content["number"]), "prompt": content["prompt"]}
        rows: list[Row] = [
            {**about, "kind": kind, "word": one.noun, **scores(maps.mask(one.noun), torch.from_numpy(one.mask))}
            for kind, one in (("named", named), ("concept", other))
        ]
        found = {SAME_PASS: {noun: maps.presence(noun).score for noun in concepts}}
        if options.with_denoising:
            found[BY_ERROR] = presence_by_denoising(runner.pipe, scene.image, concepts, seed=content["index"])
        for by, each in found.items():
            rows += [
                {**about, "kind": "presence", "word": noun, "by": by, "score": score, "present": noun == other.noun}
                for noun, score in each.items()
            ]
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        if rows.empty or len(rows["half"].unique()) < 2:
            return Report("Concepts", [Text("Two scenes of a style are the least: one to choose on and one to report.")])
        reported = rows[rows["half"] == REPORTING]
        return Report("Concepts", [Text(_ABOUT), _masks(reported), _presence(rows)])


_ABOUT = (
    "Drawn scenes of two objects, noised and denoised one step at nine levels with a prompt that names one of them; the other "
    "is looked for as a concept, beside ten nouns that are not there. Levels were chosen on the choosing half and all figures "
    "are of the reporting half."
)


def separation(present: Sequence[float], absent: Sequence[float]) -> float:
    """The area under the curve of true against false positives: how often a present one scores above an absent one.

    NaN where there is none of either kind.
    """
    if not len(present) or not len(absent):
        return float("nan")
    a, b = np.asarray(present)[:, None], np.asarray(absent)[None]
    return float((a > b).mean() + (a == b).mean() / 2)


def best_level(present: Sequence[float], absent: Sequence[float]) -> float:
    """The score from which on most are called rightly, both kinds counting alike."""
    a, b = np.asarray(present), np.asarray(absent)
    levels = np.unique(np.concatenate([a, b]))
    return float(levels[int(np.argmax([(a >= level).mean() + (b < level).mean() for level in levels]))])


def _masks(reported: pd.DataFrame) -> Table:
    lines = []
    for style in reported["style"].unique():
        line: dict[str, object] = {"scenes": style}
        for kind in ("named", "concept"):
            own = reported[(reported["style"] == style) & (reported["kind"] == kind)]
            line["named by the prompt" if kind == "named" else "as a concept"] = str(mean_interval(own["iou"], own["prompt"]))
        lines.append(line)
    return Table("Mean IoU of the default mask", pd.DataFrame(lines), "With 95 % bootstrap intervals over prompts.")


def _presence(rows: pd.DataFrame) -> Table:
    lines: list[dict[str, Any]] = []
    scored = rows[rows["kind"] == "presence"]
    for by in scored["by"].unique():
        chosen = scored[(scored["by"] == by) & (scored["half"] == CHOOSING)]
        level = best_level(*_split(chosen))
        for style in scored["style"].unique():
            own = scored[(scored["by"] == by) & (scored["half"] == REPORTING) & (scored["style"] == style)]
            there, not_there = _split(own)
            lines.append(
                {
                    "presence by": by,
                    "scenes": style,
                    "AUC": separation(there, not_there),
                    "level": level,
                    "present called likely": float(np.mean(np.asarray(there) >= level)),
                    "absent called unlikely": float(np.mean(np.asarray(not_there) < level)),
                }
            )
    return Table(
        "Telling what is there from what is not",
        pd.DataFrame(lines),
        "AUC: how often a noun that is in the picture scores above one that is not. The level was chosen on the other half.",
    )


def _split(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    there = rows["present"].astype(bool)
    return rows.loc[there, "score"].tolist(), rows.loc[~there, "score"].tolist()


def _scene(index: int, style: Any) -> Any:
    from ..tiny.scenes import scene_at

    return scene_at(WORLD_SEED + 7, index, two=1.0, style=style)
