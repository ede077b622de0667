"""The report of the syntax study: the paper's Table 2 for this model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
import pandas as pd

from . import plots
from .report import Example, Part, Plot, Report, Table, Text
from .significance import clustered, holm, p_text, paired, welch
from .statistics import Interval, mean_interval
from .study import Found
from .trees import most_common
from .word_masks import pixels

CONTENT = "unrelated, both content words"
UNRELATED, ALL_PAIRS, COREFERENT = "unrelated pairs", "all head-dependent pairs", "coreferent pairs"
MEASURES = {"iod": "mIoD", "ioh": "mIoH", "iou": "mIoU"}
PAPER: Mapping[str, tuple[float, float, float]] = {
    UNRELATED: (65.1, 66.1, 47.5),
    ALL_PAIRS: (62.3, 62.0, 43.4),
    "compound": (71.3, 71.5, 51.1),
    "punct": (68.2, 70.0, 49.5),
    "conj:and": (58.0, 56.1, 38.2),
    "det": (54.8, 52.2, 35.0),
    "case": (51.7, 58.1, 36.9),
    "acl": (67.4, 79.3, 55.4),
    "nsubj": (76.4, 63.9, 52.2),
    "amod": (62.4, 77.6, 51.1),
    "nmod:of": (73.5, 57.9, 47.5),
    "obj": (75.6, 46.3, 55.4),
    COREFERENT: (84.8, 77.4, 66.6),
}
"""Table 2 of the paper (SD 2 base, COCO captions): mIoD, mIoH, mIoU in percent."""
DOMINANCE = 10.0
"""Points of mIoD - mIoH from which the paper calls one of the two dominant."""
ALPHA = 0.01
"""The paper's level of significance."""


def conclude(found: Found, options: argparse.Namespace) -> Report:
    """Tables, plot and examples."""
    rows = found.rows
    compared = rows.dropna(subset=["iou"])
    groups = lines(compared)
    parts: list[Part] = [Text(_setting(rows, compared, options))]
    facts = {"pairs": len(compared), "pairs_left_out": len(rows) - len(compared)}
    if not groups:
        return Report("Syntax: words that depend on each other", [*parts, Text("Not one pair could be compared.")], facts=facts)
    table = overlap_table(groups)
    parts += [table, _paper_table(groups), _plot(groups), Text(_words(compared), "Pairs by name")]
    examples = [
        Example(
            f"example-{number}", pixels(path), f"“{_prompt(found, key)}”, {name}: picture, dependent, head, with their masks."
        )
        for number, ((key, name), path) in enumerate(list(found.pictures.items())[:12], 1)
    ]
    return Report("Syntax: words that depend on each other", [*parts, *examples], facts=facts)


def lines(compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of the table: unrelated pairs (and those of them that are no function words), all head-dependent pairs, the
    ten most common relations, coreferents."""
    related, unrelated = compared[compared["kind"] == "relation"], compared[compared["kind"] == "unrelated"]
    found = {UNRELATED: unrelated, CONTENT: unrelated[unrelated["content"].astype(bool)], ALL_PAIRS: related}
    found |= {name: related[related["relation"] == name] for name in most_common(related["relation"].to_list())}
    found[COREFERENT] = compared[compared["kind"] == "coreferent"]
    return {name: part for name, part in found.items() if len(part)}


def overlap_table(groups: Mapping[str, pd.DataFrame]) -> Table:
    """Means in percent, who dominates, and two tests against the unrelated pairs, each adjusted by Holm's method."""
    base = groups.get(UNRELATED)
    tested = [name for name in groups if name != UNRELATED]
    naive = holm([welch(groups[n]["iou"], base["iou"]) if base is not None else np.nan for n in tested])
    by_prompt = holm(
        [
            clustered(groups[n]["iou"], base["iou"], groups[n]["prompt"], base["prompt"]) if base is not None else np.nan
            for n in tested
        ]
    )
    sided = holm([paired(groups[n]["iod"], groups[n]["ioh"], groups[n]["prompt"]) for n in groups])
    as_pairs, as_prompts = dict(zip(tested, naive, strict=True)), dict(zip(tested, by_prompt, strict=True))
    found = []
    for (name, part), p_sided in zip(groups.items(), sided, strict=True):
        iod, ioh = 100 * part["iod"].mean(), 100 * part["ioh"].mean()
        iou = mean_interval(part["iou"], part["prompt"])
        found.append(
            {
                "pairs of words": name,
                "pairs": len(part),
                "prompts": part["prompt"].nunique(),
                "mIoD": iod,
                "mIoH": ioh,
                "mIoD - mIoH": iod - ioh,
                "dominates": dominant(iod - ioh, p_sided),
                "p (IoD = IoH)": p_text(p_sided),
                "mIoU": 100 * iou.mean,
                "95 % interval": _interval(iou),
                "p, pairs": p_text(as_pairs.get(name, np.nan)),
                "p, prompts": p_text(as_prompts.get(name, np.nan)),
            }
        )
    caption = (
        "In percent. The dependent dominates where its mask covers the head's (mIoH much larger than mIoD), the head where "
        f"it is the other way round; as in the paper, from {DOMINANCE:.0f} points on and with p < {ALPHA}. All tests are "
        "two-sided, each column is adjusted for multiple comparisons by Holm's method. p (IoD = IoH): Wilcoxon's signed-rank "
        "test on the means of each prompt. p, pairs: mIoU against the unrelated pairs, Welch's t-test with every pair as an "
        "independent observation. p, prompts: the same difference with errors that are robust to pairs of one prompt hanging "
        "together, which is the one to believe. Content words are nouns, adjectives, verbs and numerals: words like “a” attend "
        "nearly everywhere and fill the first line. The interval is a bootstrap over prompts."
    )
    return Table("Overlap by relation (the paper's Table 2)", pd.DataFrame(found), caption, digits=1)


def dominant(difference: float, p: float) -> str:
    """Who dominates by the paper's rule: "head" where mIoD - mIoH >= 10 points, "dependent" where <= -10; "-" if p >= 0.01."""
    if not p < ALPHA or abs(difference) < DOMINANCE:
        return "-"
    return "head" if difference > 0 else "dependent"


def _paper_table(groups: Mapping[str, pd.DataFrame]) -> Table:
    found = []
    for name in list(dict.fromkeys([*groups, *PAPER])):
        part, paper = groups.get(name), PAPER.get(name)
        line: dict[str, object] = {"pairs of words": name}
        for k, (column, title) in enumerate(MEASURES.items()):
            line[f"{title}, here"] = np.nan if part is None else 100 * part[column].mean()
            line[f"{title}, paper"] = np.nan if paper is None else paper[k]
        found.append(line)
    caption = "The paper's are of SD 2 base on captions of COCO: the order of relations can be compared, the numbers cannot."
    return Table("Beside the paper", pd.DataFrame(found), caption, digits=1)


def _plot(groups: Mapping[str, pd.DataFrame]) -> Plot:
    figure, (axes,) = plots.new_figure(height=1.2 + 0.34 * len(groups))
    place = np.arange(len(groups))[::-1]
    for (column, title), colour, marker, shift in zip(
        MEASURES.items(), plots.COLOURS, plots.MARKERS, (0.2, 0.0, -0.2), strict=False
    ):
        found = [mean_interval(part[column], part["prompt"]) for part in groups.values()]
        ends = np.array([[i.mean - i.low, i.high - i.mean] for i in found]).T
        axes.errorbar(
            [100 * i.mean for i in found], place + shift, xerr=100 * np.nan_to_num(ends).clip(min=0), fmt=marker,
            color=colour, markersize=5, elinewidth=1, capsize=2, label=title,
        )  # fmt: skip
    axes.set_yticks(place, [f"{name} ({len(part)})" for name, part in groups.items()], fontsize=8)
    axes.set_xlim(-2, 102)  # so that no marker at an end is cut
    axes.set_xlabel("overlap, %")
    plots.legend_below(figure, axes)
    return Plot("relations", figure, "Overlap by relation with 95 % bootstrap intervals over prompts; in brackets the pairs.")


def _words(compared: pd.DataFrame) -> str:
    """The pairs of a content relation that overlap most and least, so that a reader sees what is behind a mean."""
    related = compared[(compared["kind"] == "relation") & ~compared["relation"].isin(["det", "cc", "case", "fixed", "punct"])]
    if related.empty:
        return "No relation between content words occurs."
    named = related.assign(name=related["relation"] + "(" + related["head"] + ", " + related["dependent"] + ")")
    means = named.groupby("name")["iou"].mean().sort_values(kind="stable")
    least = ", ".join(f"{name} {100 * value:.0f} %" for name, value in means.head(5).items())
    most = ", ".join(f"{name} {100 * value:.0f} %" for name, value in means.tail(5)[::-1].items())
    return f"Most overlap (mIoU): {most}. Least: {least}."


def _setting(rows: pd.DataFrame, compared: pd.DataFrame, options: argparse.Namespace) -> str:
    text = (
        f"{len(compared)} pairs of words on {rows['unit'].nunique()} pictures of {options.model}; masks by Eq. 7 at tau "
        f"{options.tau}, maps by the aggregation “{options.aggregation}”. An unrelated pair is two words of one prompt without "
        "an arc between them. Coreferents are found by two cautious rules (a noun said again under a definite word, a pronoun "
        "with one possible noun), not by a resolver."
    )
    if options.prompts is None:
        text += (
            " Prompts and trees are the embedded world's own. Its grammar has no pronouns, verbs or compounds: a coreferent "
            "is a second mention (“a red house and a green tree above the house”), which training never showed."
        )
    left = len(rows) - len(compared)
    if left:
        text += f" {left} pairs are left out: a word was cut off or cut differently by the tokenizer, or has no heat."
    return text


def _prompt(found: Found, key: str) -> str:
    return next(str(unit.content["prompt"]) for unit in found.units if unit.key == key)


def _interval(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}" if np.isfinite(interval.low) else "-"
