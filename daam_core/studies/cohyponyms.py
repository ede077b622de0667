"""Whether two things that are alike get in each other's way: "a X and a Y" (paper, section 5.1, Fig. 8)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..diffusers.loading import INSIDE
from ..errors import BadArgument
from ..files import typed_path
from . import cohyponyms_report
from .human_labels import read_labels
from .noun_pairs import NounPair, read_pairs, world_pairs
from .prompts import SEED_STRIDE
from .report import Report
from .segment import things_in
from .study import Found, Measured, Picture, Row, Study, Unit
from .word_masks import add_tau_option, heat, overlaps, panels, shrunk, word_masks

if TYPE_CHECKING:
    from .model_runner import ModelRunner, Sample

SEGMENTER, MAPS = "segmenter", "maps"
APART = 0.5
"""IoU of the two masks below which the maps' own measure says that both are there."""
KEPT_SIDE = 256
"""Pixels of the longer side of pictures that are kept for people to label."""
EXAMPLES = 4


class CohyponymsStudy(Study):
    """How often both things appear, how far their maps overlap, and whether the two go together."""

    name = "cohyponyms"
    outside = frozenset({"pairs", "labels"})

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--pairs",
            type=typed_path,
            metavar="FILE",
            help="CSV with the columns first, second, relation (cohyponym or other), for example from WordNet (default: the "
            "embedded world's pairs)",
        )
        parser.add_argument(
            "--judge",
            choices=("auto", SEGMENTER, MAPS),
            default="auto",
            help="who says whether both things are there: the trained segmenter (knows the embedded world only; default with "
            "--model tiny), or the maps' own measure, which is a mere proxy (default with another model)",
        )
        parser.add_argument(
            "--labels", type=typed_path, metavar="FILE", help="CSV with the columns unit and both (yes or no): what people saw"
        )
        add_tau_option(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        from ..tiny.shapes import NOUNS

        if options.prompts is not None:
            raise BadArgument("This study makes its prompts of pairs of nouns: give --pairs FILE instead of --prompts.")
        found = world_pairs() if options.pairs is None else read_pairs(options.pairs)
        strange = sorted({noun for pair in found for noun in (pair.first, pair.second)} - set(NOUNS))
        if judge(options) == SEGMENTER and strange:
            raise BadArgument(
                f"The segmenter does not know {', '.join(strange[:5])}; it knows {', '.join(NOUNS)}. Say --judge maps."
            )
        units = [unit for kind in ("cohyponyms", "others") for unit in _units([p for p in found if p.kind == kind], options)]
        if options.labels is not None:
            read_labels(options.labels, {unit.key for unit in units})  # a wrong file is refused before anything is generated
        return units

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        content = unit.content
        sample = runner.picture(content["prompt"], content["seed"])
        words = [(content["first"],), (content["second"],)]
        masks = word_masks(sample.maps, words, options.tau)
        found = overlaps(masks[0], masks[1])
        row: Row = {name: content[name] for name in ("kind", "pair", "first", "second", "prompt", "seed")}
        row |= {
            "iou": found["iou"],
            "iod": found["iod"],
            "ioh": found["ioh"],
            **_both_there(sample, content, found, judge(options)),
        }
        pictures: dict[str, Picture] = {}
        if content["number"] < EXAMPLES and content["turn"] == 0:
            pictures["panels"] = panels(sample.image, list(heat(sample.maps, words)), list(masks))
        if judge(options) == MAPS:
            pictures["picture"] = shrunk(sample.image, KEPT_SIDE)
        return Measured([row], pictures)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        return cohyponyms_report.conclude(found, options, judge(options))


def judge(options: argparse.Namespace) -> str:
    """Who says whether both things appear: "segmenter" or "maps"."""
    if options.judge != "auto":
        return str(options.judge)
    return SEGMENTER if options.model in INSIDE else MAPS


def _units(pairs: list[NounPair], options: argparse.Namespace) -> list[Unit]:
    """`--seeds` pictures of each of `--limit` pairs; every second one names the second noun first."""
    units = []
    for number, pair in enumerate(pairs[: options.limit]):
        for turn in range(options.seeds):
            seed = options.first_seed + turn * SEED_STRIDE + number
            first, second = (pair.second, pair.first) if turn % 2 else (pair.first, pair.second)
            content = {
                "kind": pair.kind, "pair": f"{pair.first}, {pair.second}", "first": first, "second": second,
                "prompt": pair.prompt(swapped=turn % 2 == 1), "number": number, "turn": turn, "seed": seed,
            }  # fmt: skip
            units.append(Unit(f"{pair.kind} {pair.first} {pair.second} seed {seed}", content))
    return units


def _both_there(sample: Sample, content: dict[str, str], found: Row, who: str) -> Row:
    """Whether each and both appear, and who says so."""
    if who == SEGMENTER:
        seen = things_in(sample.image)
        first, second = content["first"] in seen, content["second"] in seen
        return {"first_seen": first, "second_seen": second, "both": first and second, "judge": SEGMENTER}
    iou = found["iou"]
    return {"first_seen": None, "second_seen": None, "both": None if iou is None else float(iou) < APART, "judge": MAPS}
