"""The report of the adjectives study: the paper's section 5.2 and Fig. 9 and 10 for this model."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from . import plots
from .report import Example, Part, Plot, Report, Table, Text
from .significance import holm, p_text, paired
from .statistics import mean_interval
from .study import Found
from .word_masks import pixels

TITLE = "Adjectives: how far do they reach past their nouns?"
CHANGES = (
    ("adjective removed", "free"), ("adjective removed", "noun frozen"),
    ("adjective replaced", "free"), ("adjective replaced", "noun frozen"), ("adjective replaced", "all frozen"),
)  # fmt: skip


def conclude(found: Found, options: argparse.Namespace) -> Report:
    """Tables, plot and examples."""
    rows = found.rows
    reaches, changes = rows[rows["what"] == "reach"], rows[rows["what"] == "change"]
    known = changes.dropna(subset=["outside"])
    facts = {"pictures_compared": len(changes), "without_region": int(changes["inside"].isna().sum())}
    parts: list[Part] = [Text(_setting(reaches, changes, options)), reach_table(reaches), Text(reach_text(reaches))]
    if known.empty:
        parts.append(Text("Not in one pair of pictures was the noun found, so changes outside of it cannot be told."))
    else:
        parts += [change_table(known), _plot(reaches, known), _adjective_table(reaches, known)]
    captions = {
        "heat": "the picture, the adjective's heat, the noun's heat, with their masks",
        "variants": "with the adjective; without it; without it, noun frozen; with the other; with the other, noun frozen; "
        "with the other, all but the adjective frozen",
    }
    examples = [
        Example(f"example-{number}-{name}", pixels(path), f"“{_prompt(found, key)}”: {captions[name]}.")
        for number, ((key, name), path) in enumerate(list(found.pictures.items())[:12], 1)
    ]
    return Report(TITLE, [*parts, *examples], facts=facts)


def reach_table(reaches: pd.DataFrame) -> Table:
    """How far the adjective's map goes past its noun, against the noun's own map and an even spread."""
    lines = []
    for name, column in (("adjective", "adjective_outside"), ("noun", "noun_outside"), ("even spread", "area_outside")):
        interval = mean_interval(reaches[column], reaches["template"])
        lines.append({"map": name, "maps": interval.count, "heat outside the noun": str(interval) if interval.count else "-"})
    caption = "Share of a map's heat outside the noun's region, 95 % bootstrap intervals over prompts."
    return Table("Reach of the adjective's map (the paper's Fig. 9)", pd.DataFrame(lines), caption)


def reach_text(reaches: pd.DataFrame) -> str:
    """What the reach is compared with, and the tests."""
    p = holm(
        [
            paired(reaches["adjective_outside"], reaches["noun_outside"], reaches["template"]),
            paired(reaches["adjective_outside"], reaches["area_outside"], reaches["template"]),
            paired(reaches["iod"], reaches["ioh"], reaches["template"]),
        ]
    )
    iod, ioh, iou = (_percent(reaches[column]) for column in ("iod", "ioh", "iou"))
    return (
        "The noun's region is grown by a 64th of the picture's shorter side; an even spread has as much heat outside as there "
        f"is picture outside. Adjective against noun p {p_text(p[0])}, against an even spread p {p_text(p[1])}. Masks by "
        f"Eq. 7: mIoD {iod}, mIoH {ioh}, mIoU {iou} (the adjective is the dependent; IoD = IoH: p {p_text(p[2])}; the "
        "paper's amod: 62.4, 77.6, 51.1). Wilcoxon's signed-rank test on the means of each prompt, two-sided, Holm's method "
        "over the three."
    )


def change_table(known: pd.DataFrame) -> Table:
    """How much of the picture changes inside and outside the noun, free and frozen."""
    lines, tests = [], []
    for change, held in CHANGES:
        part = _of(known, change, held)
        if part.empty:
            continue
        outside = mean_interval(100 * part["outside"], part["template"])
        if held == "free":
            tests.append(np.nan)
        else:
            both = part.merge(_of(known, change, "free"), on="unit", suffixes=("", "_free"))
            tests.append(paired(both["outside"], both["outside_free"], both["template"]))
        lines.append(
            {
                "change": change,
                "attention": held,
                "pictures": len(part),
                "inside": 100 * part["inside"].mean(),
                "outside": outside.mean,
                "95 % interval": f"{outside.low:.1f} to {outside.high:.1f}" if np.isfinite(outside.low) else "-",
                "seen inside": 100 * part["seen_inside"].mean(),
                "seen outside": 100 * part["seen_outside"].mean(),
                "noun stays": part["stays"].mean(),
            }
        )
    for line, p in zip(lines, holm(tests), strict=True):
        line["p (free)"] = p_text(p)
    caption = (
        "Against the picture with the adjective, from the same noise. Inside, outside: mean absolute difference of the colour "
        "channels in percent, in the noun's region (of both pictures, grown by a 64th of the shorter side) and outside of it. "
        "Seen: share of pixels, in percent, of which a channel differs by more than 16 of 255. Noun stays: IoU of the noun's "
        "regions in the two pictures. Frozen: the noun's (or all but "
        "the adjective's) cross-attention probabilities are those of the picture with the adjective, at every layer and step. "
        "p (free): change outside against the same change with free attention, Wilcoxon's signed-rank test on the means of "
        "each prompt, two-sided, Holm's method; 95 % bootstrap interval over prompts."
    )
    return Table("Change of the picture (the paper's Fig. 10)", pd.DataFrame(lines), caption, digits=2)


def _adjective_table(reaches: pd.DataFrame, known: pd.DataFrame) -> Table:
    free = known[(known["attention"] == "free") & (known["change"] == "adjective removed")]
    frame = pd.DataFrame(
        {
            "maps": reaches.groupby("adjective").size(),
            "heat outside the noun": reaches.groupby("adjective")["adjective_outside"].mean(),
            "IoD": reaches.groupby("adjective")["iod"].mean(),
            "change outside when removed, %": 100 * free.groupby("adjective")["outside"].mean(),
        }
    )
    return Table("By adjective", frame.rename_axis("adjective").reset_index().head(60), "Means; at most 60.")


def _plot(reaches: pd.DataFrame, known: pd.DataFrame) -> Plot:
    figure, (left, right) = plots.new_figure(height=3.2, columns=2)
    columns = {"adjective": "adjective_outside", "noun": "noun_outside", "even\nspread": "area_outside"}
    shown = {name: reaches[column].dropna().to_numpy(float) for name, column in columns.items()}
    shown = {name: values for name, values in shown.items() if len(values)}
    if shown:
        left.boxplot(
            list(shown.values()), tick_labels=list(shown), widths=0.55, flierprops={"markersize": 3},
            medianprops={"color": plots.COLOURS[1], "linewidth": 1.6},
        )  # fmt: skip
    left.set_ylim(0, 1)
    left.set_ylabel("heat outside the noun")
    found = {
        f"{change.removeprefix('adjective ')}, {held}": mean_interval(100 * part["outside"], part["template"])
        for change, held in CHANGES
        if len(part := _of(known, change, held))
    }
    plots.bars(
        right, list(found), [i.mean for i in found.values()], [i.low for i in found.values()], [i.high for i in found.values()],
        "change outside the noun, %",
    )  # fmt: skip
    return Plot(
        "adjectives", figure, "Left: heat outside the noun's region. Right: change outside it, 95 % bootstrap intervals."
    )


def _percent(values: pd.Series[float]) -> str:
    return f"{100 * values.mean():.1f} %" if values.notna().any() else "-"


def _of(known: pd.DataFrame, change: str, held: str) -> pd.DataFrame:
    return known[(known["change"] == change) & (known["attention"] == held)]


def _setting(reaches: pd.DataFrame, changes: pd.DataFrame, options: argparse.Namespace) -> str:
    judges = sorted(set(reaches["region"]))
    where = {
        ("segmenter",): "the noun's region is what the trained segmenter sees",
        (
            "default mask",
        ): "the noun's region is its default mask, made of the same attention (no segmenter knows this model's world)",
    }.get(
        tuple(judges),
        "the noun's region is what the trained segmenter sees, or its default mask where it does not know the noun",
    )
    text = (
        f"{reaches['template'].nunique()} prompts, {reaches['unit'].nunique()} batches of six pictures of {options.model} from "
        f"one noise each; maps by the aggregation “{options.aggregation}”, masks by Eq. 7 at tau {options.tau}; {where}."
    )
    missing = changes[changes["inside"].isna() & changes["outside"].isna()]
    if len(missing):
        text += f" In {len(missing)} of {len(changes)} comparisons a picture does not show the noun; they are left out."
    return text


def _prompt(found: Found, key: str) -> str:
    return next(str(unit.content["prompt"]) for unit in found.units if unit.key == key)
