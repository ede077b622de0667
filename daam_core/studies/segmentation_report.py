"""The report of the segmentation study: the paper's Table 1 and Fig. 4 and 5 for this model."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from . import baselines, plots
from .ground_truth import ACCURACY, KINDS
from .report import Example, Part, Plot, Report, Table, Text
from .segmentation_paper import accuracy_beside_the_paper, beside_the_paper
from .statistics import mean_interval
from .study import Found

PAPER_TAUS = (0.3, 0.4, 0.5)
ORDINARY, UNREAL = "ordinary", "unreal"
_GROUPS = {"one object": ORDINARY, "two objects": ORDINARY, "held-out one": UNREAL, "held-out two": UNREAL}
CURVES = {"paper": "Eq. 7", "castorini": "castorini's rule", "castorini/daam package": "castorini/daam package"}
_MOST_EXAMPLES = 12


def conclude(found: Found, options: argparse.Namespace) -> Report:
    """Tables, curve, examples and the counts that they stand on."""
    rows = found.rows
    accuracy = rows[rows["split"] == ACCURACY]
    scored = rows[rows["iou"].notna() & (rows["split"] != ACCURACY)].copy()
    scored["group"] = scored["split"].map(lambda split: _GROUPS.get(split, split))
    closed = closed_set(scored, options.closed)
    parts: list[Part] = [Text(_setting(rows, scored, closed, accuracy, options))]
    facts: dict[str, object] = {"closed_set": closed, "masks_scored": _count(scored)}
    if scored.empty:
        return Report("Segmentation by word maps", [*parts, Text("Not one mask could be scored.")], facts=facts)
    parts += [_overlap_table(scored, closed), _accuracy_table(scored), _split_table(scored), _curve(scored), _nouns(scored)]
    if options.truth in KINDS:
        parts.insert(2, beside_the_paper(scored, closed, judged=options.truth == "generated"))
        parts.insert(4, accuracy_beside_the_paper(scored))
    return Report("Segmentation by word maps", [*parts, *_examples(found)], facts=facts)


def closed_set(scored: pd.DataFrame, count: int) -> list[str]:
    """The `count` nouns with most true masks, in order; the alphabet breaks ties."""
    masks = scored.drop_duplicates(["unit", "word"])["word"].value_counts()
    return [str(word) for word, _ in sorted(masks.items(), key=lambda item: (-item[1], str(item[0])))[:count]]


def best_tau(scored: pd.DataFrame, mask: str) -> float:
    """The threshold with the highest mean IoU of a rule; the lower of two equal ones."""
    means = scored[scored["mask"] == mask].groupby("tau")["iou"].mean()
    return float(means.idxmax())


def variants(scored: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of the tables: name -> its rows, one a true mask."""
    found: dict[str, pd.DataFrame] = {}
    for mask, label in CURVES.items():
        of_rule = scored[scored["mask"] == mask]
        if of_rule.empty:
            continue
        best = best_tau(scored, mask)
        found |= {
            f"{label}, tau {tau}" + (" (its best)" if tau == best else ""): of_rule[of_rule["tau"] == tau]
            for tau in sorted({*PAPER_TAUS, best})
        }
    names = {"default": "default mask", baselines.SEGMENTER: "segmenter (upper anchor)"}
    for mask in ("default", baselines.WHOLE, baselines.RANDOM, baselines.BOX, baselines.SEGMENTER):
        if not (part := scored[scored["mask"] == mask]).empty:
            found[names.get(mask, mask)] = part
    return found


def _overlap_table(scored: pd.DataFrame, closed: list[str]) -> Table:
    lines = []
    for name, part in variants(scored).items():
        line: dict[str, object] = {"mask": name}
        for group in _groups(scored):
            there = part[part["group"] == group]
            line[f"{group}, closed"] = there[there["word"].isin(closed)]["iou"].mean()
            line[f"{group}, open"] = there["iou"].mean()
        lines.append(line)
    caption = (
        f"Mean over masks. Closed: the {len(closed)} most common nouns ({', '.join(closed)}), as COCO's 80 classes are the "
        "paper's closed set; open: all nouns."
    )
    return Table("Mean IoU (the paper's Table 1)", pd.DataFrame(lines), caption)


def _accuracy_table(scored: pd.DataFrame) -> Table:
    lines = []
    for name, part in variants(scored).items():
        line: dict[str, object] = {"mask": name}
        for group in _groups(scored):
            there = part[part["group"] == group]
            line |= {f"{group}, pixel accuracy": there["pixel_accuracy"].mean(), f"{group}, Dice": there["dice"].mean()}
        lines.append(line)
    return Table("Pixel accuracy and Dice, all nouns", pd.DataFrame(lines), "Mean over masks.")


def _split_table(scored: pd.DataFrame) -> Table:
    lines = []
    for name, part in variants(scored).items():
        line: dict[str, object] = {"mask": name}
        for split in scored["split"].unique():
            there = part[part["split"] == split]
            line[f"{split} ({there.drop_duplicates(['unit', 'word']).shape[0]})"] = str(
                mean_interval(there["iou"], there["prompt"])
            )
        lines.append(line)
    caption = "All nouns, in brackets the number of masks; 95 % bootstrap intervals over prompts."
    return Table("Mean IoU by kind of prompt", pd.DataFrame(lines), caption)


def _curve(scored: pd.DataFrame) -> Plot:
    groups = _groups(scored)
    figure, axes = plots.new_figure(columns=len(groups))
    for one, group in zip(axes, groups, strict=True):
        part = scored[scored["group"] == group]
        lines = {}
        for mask, label in CURVES.items():
            means = part[part["mask"] == mask].groupby("tau")["iou"].mean()
            if len(means):
                lines[label] = (means.index.to_list(), means.to_list())
        plots.curves(one, lines, "threshold", "mean IoU", group)
        for mask, place in (("default", "default mask"), (baselines.WHOLE, "whole image")):
            level = part[part["mask"] == mask]["iou"].mean()
            if not np.isnan(level):
                one.axhline(level, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)))
                one.annotate(place, (0.4, level), fontsize=7, ha="center", va="bottom", color="0.3")
        one.set_ylim(0, 1)
    plots.legend_below(figure, axes[0])
    return Plot("thresholds", figure, "Mean IoU by threshold, all nouns (the paper's Fig. 4).")


def _nouns(scored: pd.DataFrame) -> Table:
    ours = scored[scored["mask"] == "default"]
    threshold = scored[(scored["mask"] == "paper") & (scored["tau"] == best_tau(scored, "paper"))]
    frame = pd.DataFrame(
        {
            "masks": ours.groupby("word")["iou"].size(),
            "Eq. 7 at its best": threshold.groupby("word")["iou"].mean(),
            "default mask": ours.groupby("word")["iou"].mean(),
            "area": ours.groupby("word")["truth_area"].mean(),
        }
    )
    frame = frame.sort_values("masks", ascending=False, kind="stable").head(40)
    return Table("Mean IoU by noun", frame.rename_axis("noun").reset_index(), "At most the 40 most common; area of the truth.")


def _examples(found: Found) -> list[Part]:
    by_unit = {unit.key: unit for unit in found.units}
    chosen = list(found.pictures.items())[:_MOST_EXAMPLES]
    return [
        Example(
            f"example-{number}-{word}",
            _pixels(path),
            f"“{by_unit[key].content['prompt']}”, {word}: picture, heat, true mask, default mask.",
        )
        for number, ((key, word), path) in enumerate(chosen, 1)
    ]


def _setting(
    rows: pd.DataFrame, scored: pd.DataFrame, closed: list[str], accuracy: pd.DataFrame, options: argparse.Namespace
) -> str:
    truth = {"generated": "the trained segmenter's view of generated pictures", "rendered": "exact masks of rendered scenes"}
    pictures = scored["unit"].nunique()
    texts = [
        f"{_count(scored)} masks on {pictures} pictures of {options.model}. "
        f"Truth: {truth.get(options.truth, 'masks of a folder')}.",
    ]
    if options.aggregation != "sum":
        texts.append(f"The default mask is made from maps by the aggregation “{options.aggregation}”.")
    unseen = rows[rows["mask"] == "unseen"]
    absent = rows[rows["mask"] == "absent word"]
    if len(unseen):
        texts.append(f"{len(unseen)} named objects were not in their picture and are left out.")
    if len(absent):
        texts.append(f"{len(absent)} masks are of words that their prompt does not have and are left out.")
    if len(accuracy):
        values = dict(zip(accuracy["word"], accuracy["iou"], strict=True))
        texts.append(
            f"The segmenter itself reaches a mean IoU of {values['drawn']:.3f} on unseen drawn scenes and "
            f"{values['decoded']:.3f} on the same scenes as the autoencoder shows them, against exact masks."
        )
    if options.truth == "generated":
        texts.append("As the truth, its own line is 1 by definition; with --truth rendered it is measured.")
    if "difference" in scored and scored["difference"].notna().any():
        far = scored.drop_duplicates("unit")["difference"]
        texts.append(f"Painted again, pictures differ from the stored ones by {far.mean():.2f} of 255 on average.")
    return " ".join(texts)


def _groups(scored: pd.DataFrame) -> list[str]:
    return [str(group) for group in scored["group"].unique()]


def _count(scored: pd.DataFrame) -> int:
    return int(scored.drop_duplicates(["unit", "word"]).shape[0])


def _pixels(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))
