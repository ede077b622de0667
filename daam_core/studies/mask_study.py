"""Which way from heat to mask fits best, chosen on one half of the prompts and reported on the other."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import WordNotFound
from . import plots
from .baselines import castorini_masks
from .combinations import CORE, Workbench, combinations, levels_of
from .cross_validation import CHOOSING, REPORTING, Chosen, chosen, half_of
from .ground_truth import ACCURACY, OUTSIDE, add_truth_options, measured_segmenter, observe, truth_units
from .report import Part, Plot, Report, Table, Text
from .scoring import no_scores, scores
from .statistics import Interval, mean_interval
from .study import Found, Measured, Row, Study, Unit
from .tables import csv_bytes

if TYPE_CHECKING:
    from .model_runner import ModelRunner

CASTORINI = "castorini's rule"
DEFAULT = "best"
GOALS = {"one object": 0.90, "two objects": 0.86, "held-out one": 0.88, "held-out two": 0.82}
AHEAD = 0.15
_MOST_LINES = 25


class MaskStudy(Study):
    """IoU of every mask method and combination, with intervals over prompts."""

    name = "masks"
    outside = OUTSIDE

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_truth_options(parser)

    def units(self, options: argparse.Namespace) -> list[Unit]:
        return truth_units(options)

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        if "scenes" in unit.content:
            return measured_segmenter(unit)
        seen = observe(unit, runner, options, keep=("heads",))
        rows: list[Row] = []
        for word, truth in seen.masks.items():
            about = _about(unit, word)
            size = (truth.shape[0], truth.shape[1])
            try:
                bench = Workbench.of(seen.sample.maps, word, size)
            except WordNotFound:
                continue
            for how in combinations():
                for tau in levels_of(how):
                    mask = bench.mask(how, tau)
                    measured = no_scores() if mask is None else scores(mask, truth)
                    rows.append({**about, "mask": how.name, "tau": tau, **measured})
            if seen.sample.castorini is None:  # a transformer: that rule is one of UNets
                continue
            for level, theirs in castorini_masks(seen.sample.castorini, word, size).items():
                rows.append({**about, "mask": CASTORINI, "tau": level, **scores(theirs, truth)})
        return Measured(rows)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        rows = found.rows
        scored = rows[(rows["split"] != ACCURACY) & rows["iou"].notna()] if "iou" in rows else rows
        if scored.empty:
            return Report("Mask methods", [Text("Not one mask could be scored.")])
        picks = sorted(chosen(scored), key=lambda pick: -pick.mean)
        reported = scored[scored["half"] == REPORTING]
        if reported.empty or not picks:
            return Report("Mask methods", [Text("Two prompts of a kind are the least: one to choose on and one to report.")])
        parts: list[Part] = [Text(_summary(scored, reported, picks, rows, options.truth))]
        parts += [_table(reported, picks), _ceiling_table(reported, picks)]
        if CASTORINI in set(scored["mask"]):
            parts.append(_goal_table(scored, picks))
        parts.append(_plot(reported, picks))
        files = {"combinations.csv": csv_bytes(everything(scored))}
        return Report("Mask methods", parts, files, {"winner": picks[0].mask, "winner_tau": picks[0].tau})


def _about(unit: Unit, word: str) -> Row:
    content = unit.content
    return {
        "split": content["split"],
        "half": half_of(content["number"]),
        "prompt": content["prompt"],
        "seed": content["seed"],
        "word": word,
    }


def labels() -> dict[str, str]:
    """The core's name of a combination behind its parts, for tables."""
    return {how.name: f"{name}: {how.name}" for how, name in CORE.items()}


def _line(reported: pd.DataFrame, pick: Chosen) -> pd.DataFrame:
    return pick.rows(reported)


def _table(reported: pd.DataFrame, picks: list[Chosen]) -> Table:
    known = labels()
    shown = picks[:_MOST_LINES] + [pick for pick in picks[_MOST_LINES:] if pick.mask in known or pick.mask == CASTORINI]
    lines = []
    for pick in shown:
        line: dict[str, object] = {"mask": known.get(pick.mask, pick.mask), "tau": "-" if pick.tau is None else f"{pick.tau}"}
        line["chosen by"] = pick.mean
        for split in reported["split"].unique():
            there = _line(reported, pick)
            there = there[there["split"] == split]
            line[f"{split} ({len(there)})"] = str(mean_interval(there["iou"], there["prompt"]))
        lines.append(line)
    caption = (
        "Thresholds were chosen, and lines sorted, by the mean IoU on the choosing half (“chosen by”, mean of the kinds of "
        "prompt); the other columns are the reporting half, with 95 % bootstrap intervals over prompts. The "
        f"{_MOST_LINES} best combinations and all methods of the core, these with their names; in brackets the number of "
        "masks. Every combination at every threshold is in combinations.csv."
    )
    return Table("Mean IoU by mask method", pd.DataFrame(lines), caption)


def _ceiling_table(reported: pd.DataFrame, picks: list[Chosen]) -> Table:
    """The default beside the best of all candidates on each single mask: what no choice among them could exceed."""
    default = next(pick for pick in picks if labels().get(pick.mask, "").startswith(f"{DEFAULT}:"))
    lines = []
    for split in reported["split"].unique():
        of_split = _of_split(reported, split)
        ours = _line(of_split, default)
        best = of_split.groupby(["unit", "word"], sort=False).agg(iou=("iou", "max"), prompt=("prompt", "first"))
        lines.append(
            {
                "kind of prompt": split,
                "default mask": str(mean_interval(ours["iou"], ours["prompt"])),
                "best of all on each mask": str(mean_interval(best["iou"], best["prompt"])),
            }
        )
    caption = (
        "On the reporting half, the best candidate and threshold picked for every mask by its truth: a ceiling, no method."
    )
    return Table("The default mask and the ceiling of all candidates", pd.DataFrame(lines), caption)


def _goal_table(scored: pd.DataFrame, picks: list[Chosen]) -> Table:
    default = next(pick for pick in picks if labels().get(pick.mask, "").startswith(f"{DEFAULT}:"))
    lines = []
    for split in scored["split"].unique():
        of_split = _of_split(scored, split)
        reported = of_split[of_split["half"] == REPORTING]
        other = next((pick for pick in chosen(of_split) if pick.mask == CASTORINI), None)
        if other is None or reported.empty:
            continue
        ours, theirs = (_line(reported, pick) for pick in (default, other))
        ahead = difference(ours, theirs)
        goal = GOALS.get(str(split))
        lines.append(
            {
                "kind of prompt": split,
                "default mask": str(mean_interval(ours["iou"], ours["prompt"])),
                "goal": "-" if goal is None else f">= {goal:.2f}",
                "castorini's rule": str(mean_interval(theirs["iou"], theirs["prompt"])),
                "its threshold": f"{other.tau}",
                "ahead by": str(ahead),
                "goal of that": "-" if goal is None else f">= {AHEAD:.2f}",
                "both reached": "-" if goal is None else _yes(ours["iou"].mean() >= goal and ahead.mean >= AHEAD),
            }
        )
    caption = "On the same masks; castorini's rule at the threshold that served it best for this kind on the choosing half."
    return Table("The default mask against its goals", pd.DataFrame(lines), caption)


def difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> Interval:
    """Mean and interval of the differences of IoU, mask by mask."""
    both = ours.merge(theirs, on=["unit", "word"], suffixes=("", "_other"), validate="one_to_one")
    return mean_interval(both["iou"] - both["iou_other"], both["prompt"])


def _of_split(rows: pd.DataFrame, split: object) -> pd.DataFrame:
    return rows[rows["split"] == split]


def _plot(reported: pd.DataFrame, picks: list[Chosen]) -> Plot:
    known = labels()
    shown = [pick for pick in picks if pick.mask in known or pick.mask == CASTORINI]
    if picks[0] not in shown:
        shown.insert(0, picks[0])
    splits = [str(split) for split in reported["split"].unique()]
    figure, axes = plots.new_figure(
        height=3.2 * ((len(splits) + 1) // 2), columns=min(2, len(splits)), rows=(len(splits) + 1) // 2
    )
    for one, split in zip(axes, splits, strict=False):
        parts = [_of_split(_line(reported, pick), split) for pick in shown]
        found = [mean_interval(part["iou"], part["prompt"]) for part in parts]
        names = [known.get(pick.mask, pick.mask).split(":")[0] for pick in shown]
        plots.bars(one, names, [i.mean for i in found], [i.low for i in found], [i.high for i in found], "mean IoU", split)
        one.set_xlim(0, 1)
    for one in axes[len(splits) :]:
        one.set_visible(False)
    return Plot("methods", figure, "Mean IoU of the core's methods on the reporting half, with 95 % intervals over prompts.")


def everything(scored: pd.DataFrame) -> pd.DataFrame:
    """Mean IoU of every combination at every threshold over all masks of each half, best first: for combinations.csv."""
    known = labels()
    means = scored.groupby(["mask", "tau", "half"], dropna=False, sort=False)["iou"].mean().unstack("half")
    frame = means.reset_index().sort_values(CHOOSING, ascending=False, kind="stable")
    return frame.assign(mask=frame["mask"].map(lambda mask: known.get(mask, mask)))


def _summary(scored: pd.DataFrame, reported: pd.DataFrame, picks: list[Chosen], rows: pd.DataFrame, truth: str) -> str:
    known = labels()
    winner = picks[0]
    default = next(pick for pick in picks if known.get(pick.mask, "").startswith(f"{DEFAULT}:"))
    texts = [
        f"{scored.drop_duplicates(['unit', 'word']).shape[0]} masks of {scored['prompt'].nunique()} prompts, every other "
        "prompt to choose on and the rest to report.",
        f"On the choosing half {known.get(winner.mask, winner.mask)!r} is the best of {scored['mask'].nunique()}.",
    ]
    if winner.mask != default.mask:
        ahead = difference(_line(reported, winner), _line(reported, default))
        texts.append(f"The product's default is {default.mask!r}; on the reporting half the winner is ahead of it by {ahead}.")
    else:
        texts.append("It is the product's default.")
    accuracy = rows[rows["split"] == ACCURACY]
    if truth in ("rendered", "bed"):
        texts.append("The truth is exact: the scenes were drawn, noised and denoised one step.")
    elif len(accuracy):
        values = dict(zip(accuracy["word"], accuracy["iou"], strict=True))
        texts.append(
            f"The truth is a segmenter's, whose own mean IoU on unseen scenes is {values['drawn']:.3f} (drawn) and "
            f"{values['decoded']:.3f} (decoded)."
        )
    return " ".join(texts)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
