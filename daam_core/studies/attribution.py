"""Do people find that a word's heat marks what the word stands for? (paper, section 4.2, generalised attribution)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from ..cli.argument_types import whole_argument
from ..files import file_name, typed_path
from ..prompt.alignment import is_visible
from ..render.overlay import blend_heatmap
from . import attribution_report
from .parsing import GRAMMAR, SPACY, aligned, chosen_parser
from .prompts import DEFAULT_LIMIT, WORLD_SEED, StudyPrompt, picture_units, study_prompts
from .ratings import check_files
from .report import Report
from .study import Found, Measured, Picture, Row, Study, Unit
from .trees import Tree
from .word_masks import heat, shrunk

if TYPE_CHECKING:
    from .model_runner import ModelRunner

SIDE = 320
"""Pixels of the longer side of the sheet's pictures at most."""


class AttributionStudy(Study):
    """A rating sheet of words and their heat, and the report of its answers."""

    name = "attribution"
    outside = frozenset({"ratings", "sheet_seed", "sheet_items", "parser"})

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--ratings",
            type=typed_path,
            nargs="+",
            metavar="FILE",
            help="CSV files that the rating sheet downloaded, one a rater or more",
        )
        parser.add_argument(
            "--sheet-seed", type=whole_argument(0), default=0, metavar="N", help="shuffles the sheet (default: %(default)s)"
        )
        parser.add_argument(
            "--sheet-items",
            type=whole_argument(1),
            default=120,
            metavar="N",
            help="words on the sheet at most, in equal parts of each part of speech (default: %(default)s)",
        )
        parser.add_argument(
            "--parser",
            metavar="NAME",
            help="where parts of speech come from: grammar, spacy, or a spaCy pipeline (as in syntax)",
        )

    def units(self, options: argparse.Namespace) -> list[Unit]:
        check_files(options.ratings or [])  # now, and not after an hour of generating
        own = options.prompts is None
        asked = world_prompts(options.limit or DEFAULT_LIMIT) if own else study_prompts(options)
        parse = chosen_parser(options.parser or (GRAMMAR if own else SPACY))
        trees = {one.text: parse(one.text).to_dict() for one in asked}
        return [
            Unit(unit.key, {**unit.content, "tree": trees[unit.content["prompt"]]}) for unit in picture_units(options, asked)
        ]

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        content = unit.content
        tree = Tree.from_dict(content["tree"])
        sample = runner.picture(content["prompt"], content["seed"])
        labels = aligned(tree.words, sample.maps.prompt)
        known = [i for i, found in enumerate(labels) if found and is_visible(tree.words[i])]
        rows: list[Row] = []
        pictures: dict[str, Picture] = {"picture": shrunk(sample.image, SIDE)}
        for i, one in zip(known, heat(sample.maps, [labels[i] for i in known]), strict=True):
            name = f"{i:02d} {file_name(tree.words[i])}"
            about: Row = {"prompt": content["prompt"], "seed": content["seed"]}
            rows.append({**about, "place": i, "word": tree.words[i], "tag": tree.tags[i], "overlay": name})
            pictures[name] = shrunk(blend_heatmap(sample.image, one), SIDE)
        return Measured(rows, pictures)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        return attribution_report.conclude(found, options)


def world_prompts(count: int) -> list[StudyPrompt]:
    """`count` of the embedded world's wordings of two things."""
    from ..tiny.captions import BACKGROUNDS, RELATIONS, random_pairs, random_wording

    generator = np.random.default_rng([WORLD_SEED, 7])
    found = []
    for number in range(count):
        relation = RELATIONS[int(generator.integers(len(RELATIONS)))]
        background = BACKGROUNDS[int(generator.integers(len(BACKGROUNDS)))]
        wording = random_wording(generator, random_pairs(generator, 2), [None, None], relation, background)
        found.append(StudyPrompt(wording.text, "captions", number))
    return found
