"""The prompts of a study: a file of the user, or the embedded world's own, in four kinds."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ..errors import BadArgument
from .files import read_prompts
from .study import Unit

SPLITS = ("one object", "two objects", "held-out one", "held-out two")
"""The world's kinds: ordinary colour-noun pairs, and "unreal" ones that training never showed."""
WORLD_SEED = 61_000
"""No prompt of this seed was used to choose anything, nor by `tiny evaluate`."""
DEFAULT_LIMIT = 100
SEED_STRIDE = 100_000


@dataclass(frozen=True)
class StudyPrompt:
    """A prompt: its text, its kind ("prompts" for a file's) and its number within the kind."""

    text: str
    split: str
    number: int


def study_prompts(options: argparse.Namespace, splits: tuple[str, ...] = SPLITS) -> list[StudyPrompt]:
    """The prompts of `--prompts`, else at most `--limit` (100) of each of the world's `splits`; each text once.

    More pictures of a prompt are `--seeds`. A text that came twice would stand on both sides where choices are made on one
    half of the prompts and reported on the other.

    Raises:
        BadPrompt: the file is not one prompt a line.
        BadArgument: more prompts than seeds can tell apart.
    """
    if options.prompts is not None:
        texts = list(dict.fromkeys(read_prompts(options.prompts)))[: options.limit]
        if len(texts) >= SEED_STRIDE:
            raise BadArgument(f"{options.prompts} has {len(texts)} prompts; a study takes fewer than {SEED_STRIDE}.")
        return [StudyPrompt(text, "prompts", number) for number, text in enumerate(texts)]
    count = options.limit or DEFAULT_LIMIT
    return [StudyPrompt(text, split, number) for split in splits for number, text in enumerate(world_prompts(split, count))]


def world_prompts(split: str, count: int) -> list[str]:
    """The first `count` different prompts of one of the world's kinds, or all there are: 50 of one unreal thing, 370 of one
    ordinary thing, thousands of two."""
    from ..tiny.evaluate import prompts

    # The second draw misses one of the rarest single things, two in a thousand, by a chance of e^-10.
    for drawn in (2 * count + 20, 2 * count + 5000):
        texts = list(dict.fromkeys(one.text for one in prompts(split, drawn, WORLD_SEED)))[:count]
        if len(texts) == count:
            break
    return texts


def picture_units(options: argparse.Namespace, asked: list[StudyPrompt], **more: object) -> list[Unit]:
    """One unit a prompt and seed. Every prompt has seeds of its own, and more prompts or seeds only add units.

    Content: prompt, split, number, seed, and `more` (plain JSON).
    """
    units = []
    for one in asked:
        for turn in range(options.seeds):
            seed = options.first_seed + turn * SEED_STRIDE + one.number
            content = {"prompt": one.text, "split": one.split, "number": one.number, "seed": seed, **more}
            units.append(Unit(f"{one.split} {one.number:05d} seed {seed}", content))
    return units
