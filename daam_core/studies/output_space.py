"""Output space beside Eq. 6: a word's score, the affinity to its peak, and that affinity in the place of self-attention."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from ..errors import WordNotFound
from ..maps.heatmaps import HeatMaps
from ..masks.methods import MaskInputs, make_mask
from ..masks.propagate import affinity_attention
from ..masks.threshold import threshold
from ..types import Size
from .cross_validation import REPORTING, Chosen, chosen, half_of
from .ground_truth import ACCURACY, OUTSIDE, add_truth_options, measured_segmenter, observe, truth_units
from .report import Report, Table, Text
from .scoring import no_scores, scores
from .statistics import mean_interval
from .study import Found, Measured, Row, Study, Unit

if TYPE_CHECKING:
    from .model_runner import ModelRunner

TAUS = tuple(round(0.05 * i, 2) for i in range(3, 17))
DEFAULT = "default mask, self-attention"


class OutputSpaceStudy(Study):
    """IoU of Eq. 7 by four kinds of map, each at its best level, and of the default mask by what its heat walks along."""

    name = "output"
    outside = OUTSIDE

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_truth_options(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        return truth_units(options)

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        if "scenes" in unit.content:
            return measured_segmenter(unit)
        runner.output_space = True
        seen = observe(unit, runner, options)
        content, rows = unit.content, list[Row]()
        about: Row = {
            "split": content["split"], "half": half_of(content["number"]), "prompt": content["prompt"], "seed": content["seed"],
        }  # fmt: skip
        for word, truth in seen.masks.items():
            size = (truth.shape[0], truth.shape[1])
            try:
                maps = _heat(seen.sample.maps, word, size)
            except WordNotFound:
                continue
            for name, heat in maps.items():
                for tau in TAUS:
                    rows.append({**about, "word": word, "mask": name, "tau": tau, **scores(threshold(heat, tau), truth)})
            for name, inputs in links(seen.sample.maps, word, size):
                measured = no_scores() if inputs is None else scores(make_mask(inputs).mask, truth)
                rows.append({**about, "word": word, "mask": name, "tau": None, **measured})
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        scored = rows[(rows["split"] != ACCURACY) & rows["iou"].notna()] if "iou" in rows else rows
        reported = scored[scored["half"] == REPORTING] if len(scored) else scored
        if reported.empty:
            return Report("Output space", [Text("Two prompts of a kind are the least: one to choose on and one to report.")])
        picks = chosen(scored)
        text = (
            f"{scored.drop_duplicates(['unit', 'word']).shape[0]} masks of {scored['prompt'].nunique()} prompts, every other "
            "prompt to choose on and the rest to report. A word's map by Eq. 6, by late steps, by its score in output space "
            "and by the affinity to its own peak, each cut by Eq. 7 at the level that served it best on the choosing half; "
            "and the default mask, whose heat walks along self-attention, along the affinity of the attention's outputs, "
            "along the mean of both, or not at all."
        )
        facts = {pick.mask: round(float(pick.rows(reported)["iou"].mean()), 4) for pick in picks}
        return Report("Output space", [Text(text), _table(reported, picks)], facts=facts)


def _heat(maps: HeatMaps, word: str, size: Size) -> dict[str, Tensor]:
    kinds = {"Eq. 6": maps, "late steps": maps.weighted_by_time()}
    kinds |= {"output": maps.aggregate("output"), "anchor": maps.aggregate("anchor")}
    return {name: kind.heat_map(word, size) for name, kind in kinds.items()}


def links(maps: HeatMaps, word: str, size: Size) -> Iterator[tuple[str, MaskInputs | None]]:
    """What the default mask is made of, by what its heat walks along; None where that was not recorded."""
    inputs = maps.mask_inputs([word, *maps.competitors(word)], maps.picture, size)
    own = next(iter(maps.self_attention.items())) if maps.self_attention else None
    output = maps.output
    other = next(iter(output.affinity.items())) if output is not None and output.affinity else None
    yield DEFAULT, None if own is None else dataclasses.replace(inputs, self_attention=own)
    if other is None:
        return
    grid, attention = other[0], affinity_attention(other[1])
    yield "default mask, affinity", dataclasses.replace(inputs, self_attention=(grid, attention))
    if own is not None and own[0] == grid:
        both = (own[1] + attention) / 2
        yield "default mask, both", dataclasses.replace(inputs, self_attention=(grid, both))
    yield "default mask, neither", dataclasses.replace(inputs, self_attention=None)


def _table(reported: pd.DataFrame, picks: list[Chosen]) -> Table:
    lines = []
    for pick in picks:
        line: dict[str, object] = {"mask": pick.mask, "tau": "-" if pick.tau is None else f"{pick.tau}", "chosen by": pick.mean}
        own = pick.rows(reported)
        line["all kinds"] = float(own.groupby("split")["iou"].mean().mean())
        for split in reported["split"].unique():
            there = own[own["split"] == split]
            line[f"{split} ({len(there)})"] = str(mean_interval(there["iou"], there["prompt"]))
        lines.append(line)
    caption = (
        "“Chosen by” is the mean of the kinds of prompt on the choosing half; the other columns are the reporting half, "
        "“all kinds” the mean of its kinds, the rest with 95 % bootstrap intervals over prompts. In brackets the number of "
        "masks."
    )
    return Table("Mean IoU in output space", pd.DataFrame(lines), caption)
