"""How far an adjective reaches past its noun (paper, section 5.2, Fig. 9 and 10)."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import masks
from ..diffusers.loading import INSIDE
from ..diffusers.trace import KeptAxis, trace
from ..errors import BadPrompt, UnsupportedModel
from ..maps.heatmaps import HeatMaps
from ..masks import metrics as overlap
from ..prompt.prompt import Prompt
from . import adjectives_report
from .attention_freezing import Freeze, freeze, freezing, shared_words
from .prompts import SEED_STRIDE, WORLD_SEED
from .report import Report
from .segment import things_in
from .study import Found, Measured, Picture, Row, Study, Unit
from .templates import Template, noun_and_adjective, read_templates
from .word_masks import Labels, add_tau_option, heat, number, overlaps, panels, word_masks

if TYPE_CHECKING:
    from .model_runner import ModelRunner

DEFAULT_LIMIT = 60
EXAMPLES = 5
MARGIN = 1 / 64
"""Part of the shorter side by which a noun's region is grown: edges are soft, and a change at an edge is the noun's."""
VISIBLE = 16
"""Difference of a colour channel, of 255, that an eye can see side by side."""
FREE, NOUN, ALL = "free", "noun frozen", "all frozen"
REMOVED, REPLACED = "adjective removed", "adjective replaced"
VARIANTS = ((REMOVED, FREE), (REMOVED, NOUN), (REPLACED, FREE), (REPLACED, NOUN), (REPLACED, ALL))
"""What is drawn beside the first picture, in the order of the batch: what was done to the adjective, what is frozen."""


class AdjectivesStudy(Study):
    """One noise, with an adjective, without it, with another, and with the noun's attention frozen."""

    name = "adjectives"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_tau_option(parser)
        parser.epilog = (
            'A line of --prompts has a gap: "a {rusty,metallic,wooden} shovel sitting in a clean shed". The first adjective is '
            "compared with each of the others; the noun is the first word after the gap."
        )

    def units(self, options: argparse.Namespace) -> list[Unit]:
        if options.prompts is None:
            templates = world_templates(options.limit or DEFAULT_LIMIT)
        else:
            templates = read_templates(options.prompts)[: options.limit]
        units = []
        for count, template in enumerate(templates):
            for other in template.adjectives[1:]:
                for turn in range(options.seeds):
                    seed = options.first_seed + turn * SEED_STRIDE + count
                    content = {
                        "before": template.before, "adjectives": [template.adjectives[0], other], "after": template.after,
                        "prompt": template.prompt(template.adjectives[0]), "number": count, "seed": seed,
                    }  # fmt: skip
                    units.append(Unit(f"{count:05d} {template.adjectives[0]} {other} seed {seed}", content))
        return units

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        content = unit.content
        template = Template(content["before"], tuple(content["adjectives"]), content["after"])
        drawn = side_by_side(template, content["seed"], runner)
        regions = [
            _region(maps, template, adjective, runner) for maps, adjective in zip(drawn, _adjectives(template), strict=True)
        ]
        about: Row = {
            "template": template.text, "noun": template.noun, "seed": content["seed"], "region": _judge(template, runner),
        }  # fmt: skip
        rows: list[Row] = []
        for place, adjective in ((0, template.adjectives[0]), (3, template.adjectives[1])):
            noun, own = noun_and_adjective(template, drawn[place].prompt, adjective)
            measured = reach(drawn[place], own, noun, regions[place], options.tau)
            rows.append({**about, "what": "reach", "adjective": adjective, **measured})
        first = _picture(drawn[0])
        for place, (change, held) in enumerate(VARIANTS, 1):
            both = regions[0], regions[place]
            inside, stays = None, None
            if both[0] is not None and both[1] is not None:
                inside, stays = both[0] | both[1], number(overlap.iou(both[0], both[1]))
            other = template.adjectives[1] if change == REPLACED else None
            asked: Row = {"what": "change", "adjective": template.adjectives[0], "other": other, "change": change}
            asked |= {"attention": held, "stays": stays}
            rows.append({**about, **asked, **change_of(first, _picture(drawn[place]), inside)})
        pictures: dict[str, Picture] = {}
        if content["number"] < EXAMPLES:
            pictures = _examples(drawn, template, options.tau)
        return Measured(rows, pictures)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        return adjectives_report.conclude(found, options)


def world_templates(count: int) -> list[Template]:
    """Templates of the embedded world: two colours that training showed on the noun, and a place, so that there is a ground."""
    from ..tiny.captions import BACKGROUNDS, COLOUR_NAMES, HELD_OUT, PLACES
    from ..tiny.shapes import NOUNS

    generator = np.random.default_rng([WORLD_SEED, 6])
    found = []
    for _ in range(count):
        noun = NOUNS[int(generator.integers(len(NOUNS)))]
        colours = [colour for colour in COLOUR_NAMES if (colour, noun) not in HELD_OUT]
        first, second = generator.permutation(len(colours))[:2]
        background = BACKGROUNDS[int(generator.integers(len(BACKGROUNDS)))]
        found.append(Template("a", (colours[first], colours[second]), f"{noun} {PLACES[background]}".strip()))
    return found


def side_by_side(template: Template, seed: int, runner: ModelRunner) -> list[HeatMaps]:
    """The first picture and its five variants from one noise, drawn in one batch; of the frozen ones only the pictures count
    (what is recorded there is the attention before it was frozen)."""
    prompts = [template.prompt(adjective) for adjective in _adjectives(template)]
    pipe = runner.pipe
    if getattr(pipe, "unet", None) is None:
        raise UnsupportedModel(
            "This study freezes the attention of single words, which is done in UNets; "
            f"{type(pipe).__name__} has a transformer. Give a UNet's pipeline as --model."
        )
    freezes = _freezes(template, _read(pipe, prompts))
    generators = [torch.Generator("cpu").manual_seed(seed) for _ in prompts]
    with warnings.catch_warnings(), freezing(pipe.unet, len(prompts), freezes):
        warnings.simplefilter("ignore")
        keep: tuple[KeptAxis, ...] = ("heads",) if runner.aggregation == "castorini" else ()
        with trace(pipe, keep=keep, output_space=runner.output_space) as recording:
            pipe(prompts, generator=generators, **runner.how)
    return [recording.heat_maps(image, aggregation=runner.aggregation) for image in range(len(prompts))]


def reach(maps: HeatMaps, adjective: Labels, noun: Labels, region: Tensor | None, tau: float) -> Row:
    """How far an adjective's heat goes past its noun.

    IoD, IoH and IoU of the adjective's mask (the dependent) and the noun's; the shares of the adjective's and of the noun's
    heat that lie outside the noun's region, and the region's own share of the picture. Heat below zero (bicubic undershoot)
    counts as none; a share is None where there is no heat or no region.
    """
    heats = heat(maps, [adjective, noun])
    own, nouns = word_masks(maps, [adjective, noun], tau)
    found = overlaps(own, nouns)
    return {
        "iod": found["iod"], "ioh": found["ioh"], "iou": found["iou"],
        "adjective_outside": _outside(heats[0], region), "noun_outside": _outside(heats[1], region),
        "area_outside": None if region is None else number((~region).float().mean()),
    }  # fmt: skip


def change_of(first: Picture, second: Picture, inside: Tensor | None) -> Row:
    """How much two pictures differ inside a region and outside of it.

    Mean absolute difference of the colour channels, 0..1, and the share of pixels of which a channel differs by more than
    16 of 255. None where there is no such pixel, or no region is known.
    """
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16))
    level, seen = difference.mean(-1) / 255, (difference.max(-1) > VISIBLE).astype(float)
    if inside is None:
        return dict.fromkeys(("inside", "outside", "seen_inside", "seen_outside", "area_outside"))
    within = inside.numpy()
    return {
        "inside": _mean(level[within]), "outside": _mean(level[~within]),
        "seen_inside": _mean(seen[within]), "seen_outside": _mean(seen[~within]),
        "area_outside": number(float((~within).mean())),
    }  # fmt: skip


def _adjectives(template: Template) -> list[str]:
    """The adjective of each picture of the batch."""
    first, second = template.adjectives
    return [first, *(second if change == REPLACED else "" for change, _ in VARIANTS)]


def _read(pipe: object, prompts: Sequence[str]) -> list[Prompt]:
    """The prompts as the model's first tokenizer cuts them."""
    tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
    if tokenizer is None:
        raise BadPrompt("This model has no tokenizer, so words cannot be found.")
    return [
        Prompt.from_ids(
            tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids,
            tokenizer,
            text=text,
        )
        for text in prompts
    ]


def _freezes(template: Template, prompts: Sequence[Prompt]) -> list[Freeze]:
    found = []
    for place, (_, held) in enumerate(VARIANTS, 1):
        if held == FREE:
            continue
        pairs, _ = shared_words(prompts[0], prompts[place])
        if held == NOUN:
            noun, _ = noun_and_adjective(template, prompts[place], _adjectives(template)[place])
            pairs = [pair for pair in pairs if pair[1].label in noun]
        found.append(freeze((0, place), (prompts[0], prompts[place]), pairs, specials=held == ALL))
    return found


def _judge(template: Template, runner: ModelRunner) -> str:
    from ..tiny.shapes import NOUNS

    return "segmenter" if runner.model in INSIDE and template.noun in NOUNS else "default mask"


def _region(maps: HeatMaps, template: Template, adjective: str, runner: ModelRunner) -> Tensor | None:
    """Where the noun is: by the trained segmenter in the embedded world (None: it is not there), else its default mask."""
    picture = _picture(maps)
    if _judge(template, runner) == "segmenter":
        seen = things_in(picture)
        mask = seen[template.noun].mask if template.noun in seen else None
    else:
        noun, _ = noun_and_adjective(template, maps.prompt, adjective)
        mask = maps.mask(noun[-1], size=(picture.shape[0], picture.shape[1]))
    return None if mask is None else masks.grow(mask, MARGIN * min(picture.shape[:2]))


def _picture(maps: HeatMaps) -> Picture:
    assert maps.picture is not None  # the pipeline gives pictures, not latents
    return maps.picture


def _outside(one: Tensor, region: Tensor | None) -> float | None:
    """Share of the heat outside the region, 0..1."""
    if region is None:
        return None
    positive = one.clamp(min=0).double()
    total = float(positive.sum())
    return number(float(positive[~region].sum()) / total) if total > 0 else None


def _mean(values: np.ndarray) -> float | None:  # type: ignore[type-arg]
    return number(float(values.mean())) if values.size else None


def _examples(drawn: Sequence[HeatMaps], template: Template, tau: float) -> dict[str, Picture]:
    """The first picture with its two heats, and all six pictures side by side."""
    noun, adjective = noun_and_adjective(template, drawn[0].prompt, template.adjectives[0])
    heats = heat(drawn[0], [adjective, noun])
    shown = panels(_picture(drawn[0]), list(heats), list(word_masks(drawn[0], [adjective, noun], tau)))
    return {"heat": shown, "variants": np.concatenate([_picture(maps) for maps in drawn], axis=1)}
