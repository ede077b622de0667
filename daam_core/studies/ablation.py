"""Which parts of Eq. 6 matter (paper, appendix): IoU by resolution, block, layer, steps, head, interpolation, aggregation."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from ..defaults import DEFAULT_TAU
from ..errors import WordNotFound
from ..masks import minmax, threshold
from . import plots
from .ablation_variants import FAMILIES, variants
from .baselines import TAUS
from .cross_validation import REPORTING, Chosen, chosen, half_of
from .ground_truth import ACCURACY, OUTSIDE, add_truth_options, observe, truth_units
from .report import Part, Plot, Report, Table, Text
from .scoring import Counts
from .statistics import Interval, mean_interval
from .study import Found, Measured, Row, Study, Unit

if TYPE_CHECKING:
    from .model_runner import ModelRunner

PAPER_TAU = DEFAULT_TAU
EQ_7, STRETCHED = "Eq. 7", "stretched"
"""`D >= tau max D`, and the castorini package's: the map stretched to 0..1 first, then `> tau`."""
SEPARATOR = ": "


class AblationStudy(Study):
    """IoU of Eq. 7's mask for each part of Eq. 6 alone or done otherwise."""

    name = "ablation"
    outside = OUTSIDE

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_truth_options(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        return [unit for unit in truth_units(options) if unit.key != ACCURACY]

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        seen = observe(unit, runner, options, keep=("layers", "steps", "heads"))
        rows: list[Row] = []
        content = unit.content
        for word, truth in seen.masks.items():
            about: Row = {
                "split": content["split"],
                "half": half_of(content["number"]),
                "prompt": content["prompt"],
                "seed": content["seed"],
                "word": word,
            }
            try:
                found = list(variants(seen.sample.paper, seen.sample.castorini, word, (truth.shape[0], truth.shape[1])))
            except WordNotFound:
                continue
            for family, variant, heat in found:
                rows += [{**about, "family": family, "variant": variant, **row} for row in _levels(heat, truth)]
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        if "iou" not in rows or rows[rows["half"] == REPORTING].empty:
            return Report("Ablation", [Text("Two prompts of a kind are the least: one to choose on and one to report.")])
        rows = rows[rows["iou"].notna()].assign(mask=rows["family"] + SEPARATOR + rows["variant"])
        found_picks = {rule: {pick.mask: pick for pick in chosen(part)} for rule, part in rows.groupby("rule")}
        reported = rows[rows["half"] == REPORTING]
        parts: list[Part] = [Text(_summary(rows))]
        for family in FAMILIES[1:]:
            if (reported["family"] == family).any():
                parts.append(_table(reported, family, found_picks))
        return Report("Ablation of Eq. 6", [*parts, _plot(reported, found_picks)])


def _levels(heat: Tensor, truth: Tensor) -> list[Row]:
    """IoU of the map's mask at every threshold of both rules."""
    stretched = minmax(heat)
    rows: list[Row] = []
    for tau in TAUS:
        for rule, mask in ((EQ_7, threshold(heat, tau)), (STRETCHED, stretched > tau)):
            rows.append({"rule": rule, "tau": tau, "iou": Counts.of(mask, truth).iou})
    return rows


def _summary(rows: pd.DataFrame) -> str:
    masks = rows.drop_duplicates(["unit", "word"]).shape[0]
    return (
        f"{masks} masks of {rows['prompt'].nunique()} prompts. Each variant's heat map becomes a mask by Eq. 7 at the paper's "
        f"threshold {PAPER_TAU}, by Eq. 7 at the variant's own best threshold, and, as a map may be high everywhere, by its "
        "own best threshold after stretching it to 0..1. Thresholds were chosen on every other prompt; all figures are of the "
        "other half, with 95 % bootstrap intervals over prompts."
    )


Picks = Mapping[str, Mapping[str, Chosen]]


def _table(reported: pd.DataFrame, family: str, picks: Picks) -> Table:
    of_rule = {rule: reported[reported["rule"] == rule] for rule in (EQ_7, STRETCHED)}
    lines = []
    for mask in _of_family(reported, "all") + _of_family(reported, family):
        name = "all (Eq. 6)" if mask.startswith(f"all{SEPARATOR}") else _variant(mask)
        line: dict[str, object] = {family: name, f"Eq. 7 at {PAPER_TAU}": _interval(of_rule[EQ_7], Chosen(mask, PAPER_TAU, 0))}
        for rule, rows in of_rule.items():
            pick = picks[rule].get(mask)
            line[f"{rule} at its best"] = None if pick is None else f"{_interval(rows, pick)} at {pick.tau}"
        lines.append(line)
    return Table(f"By {family}: mean IoU", pd.DataFrame(lines))


def _interval(rows: pd.DataFrame, pick: Chosen) -> Interval:
    part = pick.rows(rows)
    return mean_interval(part["iou"], part["prompt"])


def _plot(reported: pd.DataFrame, picks: Picks) -> Plot:
    families = [f for f in FAMILIES[1:] if f != "layer" and (reported["family"] == f).any()]
    stretched = reported[reported["rule"] == STRETCHED]
    rows = (len(families) + 1) // 2
    figure, axes = plots.new_figure(height=2.2 * rows, columns=2, rows=rows)
    for one, family in zip(axes, families, strict=False):
        shown = [picks[STRETCHED][mask] for mask in _of_family(reported, family) if mask in picks[STRETCHED]]
        found = [_interval(stretched, pick) for pick in shown]
        names = [_variant(pick.mask) for pick in shown]
        plots.bars(one, names, [i.mean for i in found], [i.low for i in found], [i.high for i in found], "mean IoU", family)
        one.set_xlim(0, 1)
    for one in axes[len(families) :]:
        one.set_visible(False)
    caption = "Mean IoU of each variant, stretched to 0..1, at its own best threshold, with 95 % intervals over prompts."
    return Plot("ablation", figure, caption)


def _of_family(rows: pd.DataFrame, family: str) -> list[str]:
    return [str(mask) for mask in rows[rows["family"] == family]["mask"].unique()]


def _variant(mask: str) -> str:
    return mask.split(SEPARATOR, 1)[1]
