"""The report of the cohyponyms study: the paper's section 5.1 and Fig. 8 for this model."""

from __future__ import annotations

import argparse
import math

import numpy as np
import pandas as pd

from . import plots
from .human_labels import labels_template, pictures_page, read_labels
from .report import Example, Part, Plot, Report, Table, Text
from .significance import clustered, holm, logistic, p_text
from .statistics import Interval, mean_interval
from .study import Found
from .word_masks import pixels

KINDS = ("cohyponyms", "others")
_NARROW = {"cohyponyms": "cohypo-\nnyms", "others": "others"}
PEOPLE = "people"
WHO = {
    "segmenter": "the trained segmenter says whether both things are there",
    PEOPLE: "people say whether both things are there (--labels)",
    "maps": "the maps' own measure says whether both things are there (IoU of the masks below one half), which is a PROXY: it "
    "is made of the overlap itself, so nothing is concluded from how the two go together",
}
PAPER = {"others": 0.61, "cohyponyms": 0.52}
"""Part of the pictures of SD 2 base that show both things (paper, section 5.1)."""
TITLE = "Cohyponyms: do two alike things get in each other's way?"


def conclude(found: Found, options: argparse.Namespace, judge: str) -> Report:
    """Tables, plot, examples; where no segmenter knows the world also what people need to label the pictures."""
    rows = found.rows.copy()
    if options.labels is not None:
        labels = read_labels(options.labels, {unit.key for unit in found.units})
        rows["both"] = rows["unit"].map(labels)
        judge = PEOPLE
    judged = rows.dropna(subset=["both"]).assign(both=lambda frame: frame["both"].astype(float))
    facts = {"pictures": len(rows), "pictures_judged": len(judged), "judge": judge}
    parts: list[Part] = [Text(_setting(rows, judged, options, judge)), kinds_table(rows, judged)]
    if judge != "maps":
        parts.append(Text(relation(judged), "Overlap and failure"))
        parts.append(groups_table(judged))
    parts += [_plot(rows, judged), _pairs_table(rows, judged)]
    parts += [
        Example(
            f"example-{number}",
            pixels(path),
            f"{_of(found, key)['kind']}, “{_of(found, key)['prompt']}”: picture, maps, masks.",
        )
        for number, ((key, _), path) in enumerate(((k, p) for k, p in found.pictures.items() if k[1] == "panels"), 1)
    ]
    files = {}
    kept = {key: path for (key, name), path in found.pictures.items() if name == "picture"}
    if kept:
        prompts = {unit.key: str(unit.content["prompt"]) for unit in found.units}
        files = {"labels.csv": labels_template(prompts), "to_label.html": pictures_page(prompts, kept)}
    return Report(TITLE, parts, files, facts)


def kinds_table(rows: pd.DataFrame, judged: pd.DataFrame) -> Table:
    """Rate of pictures with both things and overlap by kind, each with its test of the difference."""
    from scipy.stats import fisher_exact, mannwhitneyu

    lines: list[dict[str, object]] = []
    for kind in KINDS:
        part, seen = rows[rows["kind"] == kind], judged[judged["kind"] == kind]
        rate, iou = mean_interval(seen["both"], seen["pair"]), mean_interval(part["iou"], part["pair"])
        lines.append(
            {
                "pairs of nouns": kind, "pairs": part["pair"].nunique(), "pictures": len(part), "both appear": _percent(rate),
                "paper": f"{100 * PAPER[kind]:.0f} %", "overlap (IoU)": str(iou) if iou.count else "-",
            }
        )  # fmt: skip
    here, there = (judged[judged["kind"] == kind] for kind in KINDS)
    counts = [[int(part["both"].sum()), int((1 - part["both"]).sum())] for part in (here, there)]
    fisher = float(fisher_exact(counts).pvalue) if len(here) and len(there) else math.nan
    a, b = (rows[rows["kind"] == kind].dropna(subset=["iou"]) for kind in KINDS)
    rank = float(mannwhitneyu(a["iou"], b["iou"]).pvalue) if len(a) and len(b) else math.nan
    robust = holm(
        [
            clustered(here["both"], there["both"], here["pair"], there["pair"]),
            clustered(a["iou"], b["iou"], a["pair"], b["pair"]),
        ]
    )
    plain = holm([fisher, rank])
    lines.append({"pairs of nouns": "p, pictures", "both appear": p_text(plain[0]), "overlap (IoU)": p_text(plain[1])})
    lines.append({"pairs of nouns": "p, pairs", "both appear": p_text(robust[0]), "overlap (IoU)": p_text(robust[1])})
    frame = pd.DataFrame(lines)
    frame[["pairs", "pictures"]] = frame[["pairs", "pictures"]].map(lambda n: "" if pd.isna(n) else str(int(n)))
    caption = (
        "95 % bootstrap intervals over pairs of nouns. Two-sided tests, each line adjusted by Holm's method for its two tests. "
        "p, pictures: Fisher's exact test and Mann and Whitney's, every picture an independent observation; p, pairs: with "
        "errors robust to pictures of one pair hanging together."
    )
    return Table("Cohyponyms and other pairs (the paper's Fig. 8)", frame.fillna(""), caption)


def groups_table(judged: pd.DataFrame) -> Table:
    """Overlap of the maps by kind and outcome."""
    lines = []
    for kind in KINDS:
        for outcome, name in ((1.0, "both"), (0.0, "one or none")):
            part = judged[(judged["kind"] == kind) & (judged["both"] == outcome)]
            iou = mean_interval(part["iou"], part["pair"])
            lines.append(
                {"pairs of nouns": kind, "appear": name, "pictures": len(part), "overlap (IoU)": str(iou) if iou.count else "-"}
            )
    return Table(
        "Overlap by outcome", pd.DataFrame(lines), "Mean IoU of the two words' masks; 95 % bootstrap intervals over pairs."
    )


def relation(judged: pd.DataFrame) -> str:
    """How overlap and failure go together: rank correlation, and a logistic regression that holds the kind fixed."""
    from scipy.stats import spearmanr

    known = judged.dropna(subset=["iou"])
    failures = int((1 - known["both"]).sum())
    if len(known) < 3 or known["iou"].nunique() < 2 or failures in (0, len(known)):
        return f"{failures} of {len(known)} pictures fail, so overlap cannot be related to failure."
    rank = spearmanr(known["iou"], 1 - known["both"])
    text = (
        f"{failures} of {len(known)} pictures lack one of their things. Rank correlation of overlap with failure: "
        f"{float(rank.statistic):.2f} (Spearman, p {p_text(float(rank.pvalue))}, every picture an independent observation)."
    )
    cohyponym = (known["kind"] == "cohyponyms").astype(float)
    fit = logistic(1 - known["both"], {"iou": 10 * known["iou"], "cohyponym": cohyponym}, known["pair"].to_list())
    if fit is None:
        return text + (
            " A logistic regression has no trustworthy solution here: it needs ten pictures of each outcome, five pairs, and "
            "outcomes that overlap does not tell apart completely."
        )
    iou, kind = fit["iou"], fit["cohyponym"]
    return (
        f"{text} Logistic regression (errors robust within pairs): 10 points more overlap multiply the odds of failure by "
        f"{iou.ratio:.2f} ({iou.low:.2f} to {iou.high:.2f}, p {p_text(iou.p)}); being cohyponyms at the same overlap by "
        f"{kind.ratio:.2f} ({kind.low:.2f} to {kind.high:.2f}, p {p_text(kind.p)})."
    )


def _pairs_table(rows: pd.DataFrame, judged: pd.DataFrame) -> Table:
    frame = pd.DataFrame(
        {
            "kind": rows.groupby("pair")["kind"].first(),
            "pictures": rows.groupby("pair").size(),
            "both appear, %": 100 * judged.groupby("pair")["both"].mean(),
            "overlap (IoU)": rows.groupby("pair")["iou"].mean(),
        }
    )
    frame = (
        frame.rename_axis("pair")
        .reset_index()
        .sort_values(["both appear, %", "overlap (IoU)"], ascending=[True, False], kind="stable")
    )
    return Table("By pair", frame.head(60), "Hardest pairs first; at most 60.", digits=2)


def _plot(rows: pd.DataFrame, judged: pd.DataFrame) -> Plot:
    figure, (left, right) = plots.new_figure(height=3.2, columns=2)
    rates = [mean_interval(judged[judged["kind"] == kind]["both"], judged[judged["kind"] == kind]["pair"]) for kind in KINDS]
    plots.bars(
        left, list(KINDS), [100 * r.mean for r in rates], [100 * r.low for r in rates], [100 * r.high for r in rates],
        "both appear, % of pictures",
    )  # fmt: skip
    left.set_xlim(0, 100)
    groups = {}
    for kind in KINDS:
        part = (
            rows[rows["kind"] == kind]
            .dropna(subset=["iou"])
            .merge(judged[["unit", "both"]], on="unit", suffixes=("_", ""), how="left")
        )
        for outcome, name in ((1.0, "both"), (0.0, "not both")):
            groups[f"{_NARROW[kind]},\n{name}"] = part[part["both"] == outcome]["iou"].to_numpy()
    shown = {f"{name}\n({len(values)})": values for name, values in groups.items() if len(values)}
    if shown:
        right.boxplot(
            list(shown.values()), tick_labels=list(shown), widths=0.55, flierprops={"markersize": 3},
            medianprops={"color": plots.COLOURS[1], "linewidth": 1.6},
        )  # fmt: skip
    right.tick_params(axis="x", labelsize=7)
    right.set_ylabel("IoU of the two maps")
    right.set_ylim(0, 1)
    return Plot(
        "cohyponyms",
        figure,
        "Left: rate with 95 % bootstrap intervals over pairs. Right: overlap by outcome; in brackets the pictures.",
    )


def _setting(rows: pd.DataFrame, judged: pd.DataFrame, options: argparse.Namespace, judge: str) -> str:
    text = (
        f"{len(rows)} pictures of {options.model}, “a X and a Y” for {rows['pair'].nunique()} pairs of nouns; masks by Eq. 7 "
        f"at tau {options.tau}, maps by the aggregation “{options.aggregation}”; {WHO[judge]}."
    )
    if options.pairs is None:
        text += (
            " The pairs are those of the embedded world's nine nouns that have a cohyponym there (sun, moon, star; tree, "
            "flower, mushroom; boat, car, balloon), so that every noun is in both kinds of pairs."
        )
    if len(judged) < len(rows):
        text += f" {len(rows) - len(judged)} pictures have no verdict."
    if judge == "maps":
        text += (
            " To have people judge: look at to_label.html, fill in a copy of labels.csv, and run the command again with "
            "--labels COPY."
        )
    return text


def _of(found: Found, key: str) -> dict[str, object]:
    return next(unit.content for unit in found.units if unit.key == key)


def _percent(rate: Interval) -> str:
    if rate.count == 0:
        return "-"
    ends = f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]" if np.isfinite(rate.low) else ""
    return f"{100 * rate.mean:.1f} %{ends}"
