"""Which parts of Eq. 6 matter (paper, appendix): IoU by resolution, block, layer, steps, head, interpolation, aggregation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pandas as pd

from .. import overlap
from ..errors import WordNotFound
from ..masks import threshold
from . import plots
from .ablation_variants import FAMILIES, variants
from .baselines import TAUS
from .halves import REPORTING, Chosen, chosen, half_of
from .report import Part, Plot, Report, Table, Text
from .statistics import mean_interval
from .study import Found, Measured, Row, Study, Unit
from .truth import ACCURACY, OUTSIDE, add_truth_options, observe, truth_units

if TYPE_CHECKING:
    from .studio import Studio

PAPER_TAU = 0.4
SEPARATOR = ": "


class AblationStudy(Study):
    """IoU of Eq. 7's mask for each part of Eq. 6 alone or done otherwise."""

    name = "ablation"
    help = "which layers, steps, heads, interpolation and aggregation the masks owe their fit to (appendix)"
    outside = OUTSIDE

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_truth_options(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        return [unit for unit in truth_units(options) if unit.key != ACCURACY]

    def measure(self, unit: Unit, studio: Studio, options: argparse.Namespace) -> Measured:
        seen = observe(unit, studio, options, heads=True, detail=("layers", "steps"))
        assert seen.shot.castorini is not None
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
                found = list(variants(seen.shot.paper, seen.shot.castorini, word, (truth.shape[0], truth.shape[1])))
            except WordNotFound:
                continue
            for family, variant, heat in found:
                for tau in TAUS:
                    iou = float(overlap.iou(threshold(heat, tau), truth).nan_to_num(0.0))
                    rows.append({**about, "family": family, "variant": variant, "tau": tau, "iou": round(iou, 6)})
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        if "iou" not in rows or rows[rows["half"] == REPORTING].empty:
            return Report("Ablation", [Text("Two prompts of a kind are the least: one to choose on and one to report.")])
        rows = rows.assign(mask=rows["family"] + SEPARATOR + rows["variant"])
        picks = {pick.mask: pick for pick in chosen(rows)}
        reported = rows[rows["half"] == REPORTING]
        parts: list[Part] = [Text(_summary(rows))]
        for family in FAMILIES[1:]:
            if (reported["family"] == family).any():
                parts.append(_table(reported, family, picks))
        return Report("Ablation of Eq. 6", [*parts, _plot(reported, picks)])


def _summary(rows: pd.DataFrame) -> str:
    masks = rows.drop_duplicates(["unit", "word"]).shape[0]
    return (
        f"{masks} masks of {rows['prompt'].nunique()} prompts. Each variant's heat map becomes a mask by Eq. 7, at the paper's "
        f"threshold {PAPER_TAU} and at the variant's own best, chosen on every other prompt; all figures are of the other "
        "half, with 95 % bootstrap intervals over prompts."
    )


def _table(reported: pd.DataFrame, family: str, picks: dict[str, Chosen]) -> Table:
    lines = []
    for mask in _of_family(reported, "all") + _of_family(reported, family):
        pick = picks.get(mask)
        at_paper = reported[(reported["mask"] == mask) & (reported["tau"] == PAPER_TAU)]
        line: dict[str, object] = {
            family: "all (Eq. 6)" if mask.startswith(f"all{SEPARATOR}") else _variant(mask),
            f"IoU at {PAPER_TAU}": str(mean_interval(at_paper["iou"], at_paper["prompt"])),
            "IoU at its best": None,
            "its best tau": None,
        }
        if pick is not None:
            best = pick.rows(reported)
            line |= {"IoU at its best": str(mean_interval(best["iou"], best["prompt"])), "its best tau": f"{pick.tau}"}
        lines.append(line)
    return Table(f"By {family}", pd.DataFrame(lines))


def _plot(reported: pd.DataFrame, picks: dict[str, Chosen]) -> Plot:
    families = [f for f in FAMILIES[1:] if f != "layer" and (reported["family"] == f).any()]
    rows = (len(families) + 1) // 2
    figure, axes = plots.new_figure(height=1.9 * rows, columns=2, rows=rows)
    for one, family in zip(axes, families, strict=False):
        shown = [picks[mask] for mask in _of_family(reported, family) if mask in picks]
        parts = [pick.rows(reported) for pick in shown]
        found = [mean_interval(part["iou"], part["prompt"]) for part in parts]
        names = [_variant(pick.mask) for pick in shown]
        plots.bars(one, names, [i.mean for i in found], [i.low for i in found], [i.high for i in found], "mean IoU", family)
        one.set_xlim(0, 1)
    for one in axes[len(families) :]:
        one.set_visible(False)
    return Plot("ablation", figure, "Mean IoU of each variant at its own best threshold, with 95 % intervals over prompts.")


def _of_family(rows: pd.DataFrame, family: str) -> list[str]:
    return [str(mask) for mask in rows[rows["family"] == family]["mask"].unique()]


def _variant(mask: str) -> str:
    return mask.split(SEPARATOR, 1)[1]
