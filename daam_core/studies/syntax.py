"""How words that depend on each other overlap (paper, Table 2)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadArgument
from ..tiny.captions import Caption, Node
from . import syntax_report
from .parsing import GRAMMAR, SPACY, aligned, chosen_parser
from .prompts import DEFAULT_LIMIT, WORLD_SEED, StudyPrompt, picture_units, study_prompts
from .report import Report
from .study import Found, Measured, Picture, Row, Study, Unit
from .trees import Pair, Tree, pairs
from .word_masks import add_tau_option, heat, overlaps, panels, word_masks

if TYPE_CHECKING:
    from .model_runner import ModelRunner

CONTENT = frozenset({"NOUN", "PROPN", "ADJ", "VERB", "NUM"})
"""Parts of speech of words that can be seen."""
CAPTIONS, MENTIONS = "captions", "two mentions"
EXAMPLES = 8
"""So many pictures are kept for the report."""


class SyntaxStudy(Study):
    """mIoD, mIoH and mIoU by relation, against unrelated and coreferent pairs."""

    name = "syntax"
    outside = frozenset({"parser"})  # the trees are in the units

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--parser",
            metavar="NAME",
            help="where trees come from: grammar (the embedded world's own; default without --prompts), spacy (any installed "
            "English pipeline; default with --prompts), or the name or folder of a spaCy pipeline",
        )
        add_tau_option(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        if options.prompts is None:
            trees = world_captions(options.limit or DEFAULT_LIMIT)
            if options.parser not in (None, GRAMMAR):
                parse = chosen_parser(options.parser)
                trees = {one: parse(one.text) for one in trees}
        else:
            parse = chosen_parser(options.parser or SPACY)
            trees = {one: parse(one.text) for one in study_prompts(options)}
        if not any(len(tree.words) > 1 for tree in trees.values()):
            raise BadArgument("No prompt has two words, so there are no pairs to compare.")
        by_text = {one.text: tree.to_dict() for one, tree in trees.items()}
        return [
            Unit(unit.key, {**unit.content, "tree": by_text[unit.content["prompt"]]})
            for unit in picture_units(options, list(trees))
        ]

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        content = unit.content
        tree = Tree.from_dict(content["tree"])
        maps = (sample := runner.picture(content["prompt"], content["seed"])).maps
        labels = aligned(tree.words, maps.prompt)
        known = [i for i, found in enumerate(labels) if found]
        place = {word: k for k, word in enumerate(known)}
        masks = word_masks(maps, [labels[i] for i in known], options.tau)
        rows: list[Row] = []
        for pair in pairs(tree):
            row: Row = {"split": content["split"], "prompt": content["prompt"], "seed": content["seed"], **_about(pair, tree)}
            if pair.dependent in place and pair.head in place:
                row |= overlaps(masks[place[pair.dependent]], masks[place[pair.head]])
            else:
                row |= dict.fromkeys(("iod", "ioh", "iou", "dependent_area", "head_area"))
            rows.append(row)
        pictures: dict[str, Picture] = {}
        if content["number"] < EXAMPLES and (shown := _to_show(tree, place)) is not None:
            both = [place[shown.dependent], place[shown.head]]
            found = heat(maps, [labels[shown.dependent], labels[shown.head]])
            name = f"{tree.relation(shown.dependent)}({tree.words[shown.head]}, {tree.words[shown.dependent]})"
            pictures[name] = panels(sample.image, list(found), [masks[k] for k in both])
        return Measured(rows, pictures)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        return syntax_report.conclude(found, options)


def world_captions(count: int) -> dict[StudyPrompt, Tree]:
    """The embedded world's sentences with their trees: `count` of its many wordings with two things (training captions are
    worded like that), and `count` that mention a thing twice: "a red house and a green tree above the house"."""
    from ..tiny.captions import BACKGROUNDS, RELATIONS, Thing, caption, random_pairs, random_wording

    found: dict[StudyPrompt, Tree] = {}
    generator = np.random.default_rng([WORLD_SEED, 3])
    for number in range(count):
        relation = RELATIONS[int(generator.choice(len(RELATIONS), p=[0.55, 0.15, 0.15, 0.15]))]
        background = BACKGROUNDS[int(generator.integers(len(BACKGROUNDS)))]
        said = random_wording(generator, random_pairs(generator, 2), [None, None], relation, background)
        found[StudyPrompt(said.text, CAPTIONS, number)] = Tree.from_caption(said)
    generator = np.random.default_rng([WORLD_SEED, 4])
    for number in range(count):
        things = [Thing(noun, colour) for colour, noun in random_pairs(generator, 2)]
        tree = mentioned_again(caption(things), ("above", "below", "next to")[number % 3])
        found[StudyPrompt(" ".join(tree.words), MENTIONS, number)] = tree
    return found


def mentioned_again(said: Caption, place: str) -> Tree:
    """A caption of two things whose second lies somewhere about the first: "… and a green tree above the house"."""
    first, second = said.nouns
    start = len(said.tree)
    function = place.split()
    noun = start + len(function) + 1
    nodes = [Node(function[0], noun, "case"), *(Node(word, start, "fixed") for word in function[1:])]
    nodes += [Node("the", noun, "det"), Node(said.tree[first].word, second, "nmod")]
    return Tree.from_caption(Caption(f"{said.text} {place} the {said.tree[first].word}", said.tree + tuple(nodes), said.nouns))


def _about(pair: Pair, tree: Tree) -> Row:
    both = (pair.dependent, pair.head)
    return {
        "kind": pair.kind, "relation": pair.relation, "dependent": tree.words[both[0]], "head": tree.words[both[1]],
        "content": all(tree.tags[i] in CONTENT for i in both),
    }  # fmt: skip


def _to_show(tree: Tree, place: dict[int, int]) -> Pair | None:
    """The pair of a prompt that is worth a picture: a coreferent one, else an adjective and its noun, else the first."""
    known = [p for p in pairs(tree) if p.kind != "unrelated" and p.dependent in place and p.head in place]
    order = {"coreferent": 0, "amod": 1, "conj:and": 2, "nsubj": 2, "obj": 2}
    return min(known, key=lambda p: order.get(p.relation, 9), default=None)
