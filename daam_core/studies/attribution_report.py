"""The report of the attribution study, with its rating sheet: the paper's section 4.2 for this model."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import plots
from .rating_sheet import Item, Sheet, sheet_html
from .ratings import Agreement, Answer, agreement, attentive, passed, read_ratings, table_of
from .report import Part, Plot, Report, Table, Text
from .significance import p_text
from .statistics import mean_interval
from .study import Found
from .word_masks import pixels

SHEET = "rating_sheet.html"
FAIR = 3
TITLE = "Attribution: do people find that the heat marks the word?"
TAGS = {
    "NOUN": "noun", "PROPN": "proper noun", "ADJ": "adjective", "VERB": "verb", "ADV": "adverb", "NUM": "numeral",
    "ADP": "preposition", "DET": "determiner", "CCONJ": "conjunction", "SCONJ": "subordinating conjunction", "PRON": "pronoun",
    "AUX": "auxiliary", "PART": "particle", "INTJ": "interjection", "PUNCT": "punctuation", "SYM": "symbol", "X": "other",
}  # fmt: skip


def conclude(found: Found, options: argparse.Namespace) -> Report:
    """Without --ratings the sheet, with them the means by part of speech and the agreement."""
    sheet, images = sheet_of(found, options.sheet_items)
    facts: dict[str, Any] = {"sheet": sheet.id, "items": len(sheet.items), "checks": len(sheet.checks)}
    if not sheet.items:
        return Report(TITLE, [Text("No word of any prompt can be rated.")], facts=facts)
    # Raters get the sheet again with every run: it is the same as long as the items are.
    files = {SHEET: sheet_html(sheet, images, options.sheet_seed).encode()}
    about = Text(_setting(sheet, found, options))
    if not options.ratings:
        return Report(TITLE, [about, _items_table(sheet), Text(_how(sheet), "What to do now")], files, facts)
    answers = read_ratings(options.ratings, sheet)
    table = table_of(answers, sheet)
    parts: list[Part] = [about, raters_table(answers, sheet)]
    rated = table.dropna(subset=["rating"])
    if rated.empty:
        parts.append(Text("No rating is left: no rater answered the checks as asked, or nobody rated a word."))
        return Report(TITLE, parts, files, facts)
    found_agreement = agreement(table)
    parts += [opinion_table(table), Text(agreement_text(found_agreement, table), "Agreement"), _plot(rated), _extremes(rated)]
    facts |= {"ratings": len(rated), "krippendorff_alpha": found_agreement.alpha, "fleiss_kappa": found_agreement.kappa}
    return Report(TITLE, parts, files, facts)


def sheet_of(found: Found, most: int) -> tuple[Sheet, dict[str, bytes]]:
    """The sheet of what was measured, and its image files by name.

    Of each part of speech about equally many words are taken, so that rare ones are not drowned by nouns; which ones
    depends on the units' keys alone, so that the same command gives the same sheet.
    """
    entries = []
    for row in found.rows.to_dict("records") if len(found.rows) else []:
        key = (str(row["unit"]), int(row["place"]))
        entries.append((str(row["tag"]), hashlib.sha256(repr(key).encode()).hexdigest(), row))
    by_tag: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for tag, drawn, row in sorted(entries, key=lambda entry: entry[:2]):
        by_tag.setdefault(tag, []).append((drawn, row))
    chosen: list[tuple[str, dict[str, Any]]] = []
    while len(chosen) < most and any(by_tag.values()):
        for tag in sorted(by_tag):
            if by_tag[tag] and len(chosen) < most:
                chosen.append(by_tag[tag].pop(0))
    words = {unit.key: unit.content["tree"]["words"] for unit in found.units}
    items, images = [], {}
    for _, row in chosen:
        unit, place, name = str(row["unit"]), int(row["place"]), str(row["overlay"])
        picture, overlay = f"{unit}/picture", f"{unit}/{name}"
        images[picture] = found.pictures[unit, "picture"].read_bytes()
        images[overlay] = found.pictures[unit, name].read_bytes()
        shown = pixels(found.pictures[unit, name])
        # The pixels are in the id: ratings of another model's pictures belong to another sheet.
        told = hashlib.sha256(repr((unit, place, shown.shape)).encode() + shown.tobytes()).hexdigest()[:10]
        before, word, after = cut_at(str(row["prompt"]), words[unit], place)
        items.append(Item(told, before, word, after, str(row["tag"]), picture, overlay))
    return Sheet(tuple(items)), images


def cut_at(prompt: str, words: Sequence[str], place: int) -> tuple[str, str, str]:
    """The prompt before, at and after one of its parsed words, as it was typed."""
    lower, at = prompt.lower(), 0
    for word in words[:place]:
        at = max(lower.find(word.lower(), at), at) + len(word)
    at = lower.find(words[place].lower(), at)
    if at < 0 or len(lower) != len(prompt):  # a letter whose small one is two: the words themselves, then
        return " ".join([*words[:place], ""]), words[place], " ".join(["", *words[place + 1 :]])
    end = at + len(words[place])
    return prompt[:at], prompt[at:end], prompt[end:]


def raters_table(answers: Sequence[Answer], sheet: Sheet) -> Table:
    """Who answered how much, and who counts."""
    checks = attentive(answers, sheet)
    known = {item.id for item in sheet.items}
    lines = [
        {
            "rater": rater,
            "rated": sum(a.rater == rater and a.item in known for a in answers),
            "of": len(sheet.items),
            "checks right": f"{right} of {answered}",
            "counts": "yes" if passed(answered, right) else "no",
        }
        for rater, (answered, right) in checks.items()
    ]
    return Table("Raters", pd.DataFrame(lines), "A rater counts with two thirds of the answered attention checks as asked.")


def opinion_table(table: pd.DataFrame) -> Table:
    """Mean opinion by part of speech: means of items' means, so that a word rated by many weighs as one."""
    from scipy.stats import kruskal

    lines, samples = [], []
    for tag, part in [("all", table), *sorted(table.groupby("tag"), key=lambda entry: str(entry[0]))]:
        rated = part.dropna(subset=["rating"])
        means = rated.groupby("item")["rating"].mean()
        if tag != "all" and len(means):
            samples.append(means.to_numpy())
        interval = mean_interval(means.to_list(), means.index.to_list())
        lines.append(
            {
                "part of speech": "all words" if tag == "all" else TAGS.get(str(tag), str(tag)),
                "words": part["item"].nunique(),
                "ratings": len(rated),
                "mean opinion": interval.mean,
                "95 % interval": f"{interval.low:.2f} to {interval.high:.2f}" if np.isfinite(interval.low) else "-",
                "fair or better, %": 100 * (rated["rating"] >= FAIR).mean() if len(rated) else math.nan,
                "too abstract, %": 100 * (part["remark"] == "abstract").mean(),
                "poor picture, %": 100 * (part["remark"] == "poor").mean(),
            }
        )
    differ = math.nan
    if len(samples) > 1 and len(np.unique(np.concatenate(samples))) > 1:
        differ = float(kruskal(*samples).pvalue)
    caption = (
        "1 bad, 2 poor, 3 fair, 4 good, 5 excellent. Means over words of the mean of their ratings, 95 % bootstrap intervals "
        "over words; too abstract and poor picture are shares of all answers and are in no mean. Parts of speech differ: "
        f"p {p_text(differ)} (Kruskal and Wallis, words as observations). In the paper nouns, verbs, adjectives and proper "
        "nouns are near good, numerals and adverbs near fair, and more than 80 % of the ratings are fair or better."
    )
    return Table("Mean opinion by part of speech", pd.DataFrame(lines), caption, digits=2)


def agreement_text(found: Agreement, table: pd.DataFrame) -> str:
    """Agreement as a paragraph."""
    if found.raters < 2:
        return "One rater cannot agree with anybody: have more people fill in the sheet."
    alpha = "not defined (no word was rated by two, or all ratings are equal)" if found.alpha is None else f"{found.alpha:.3f}"
    kappa = (
        "not defined (no word was rated by all, or all ratings are equal)"
        if found.kappa is None
        else f"{found.kappa:.3f} over the {found.complete} words that all rated"
    )
    by_tag = []
    for tag, part in table.groupby("tag"):
        value = agreement(part).alpha
        if value is not None:
            by_tag.append(f"{TAGS.get(str(tag), str(tag))} {value:.2f}")
    text = (
        f"{found.raters} raters; {found.shared} words were rated by two or more. Krippendorff's alpha, ordinal: {alpha}. "
        f"Fleiss' kappa, nominal: {kappa}. (1 is full agreement, 0 what chance gives; kappa takes 4 against 5 for as bad as 1 "
        "against 5.)"
    )
    return text + (f" Alpha by part of speech: {', '.join(by_tag)}." if by_tag else "")


def _items_table(sheet: Sheet) -> Table:
    counts = pd.Series([TAGS.get(item.tag, item.tag) for item in sheet.items]).value_counts(sort=False).sort_index()
    return Table("Words on the sheet", pd.DataFrame({"part of speech": counts.index, "words": counts.to_numpy()}))


def _plot(rated: pd.DataFrame) -> Plot:
    tags = sorted(rated["tag"].unique(), key=lambda tag: -rated[rated["tag"] == tag].groupby("item")["rating"].mean().mean())
    figure, (left, right) = plots.new_figure(height=1.4 + 0.3 * len(tags), columns=2)
    names = [TAGS.get(tag, tag) for tag in tags]
    means = [rated[rated["tag"] == tag].groupby("item")["rating"].mean() for tag in tags]
    found = [mean_interval(m.to_list(), m.index.to_list()) for m in means]
    plots.bars(left, names, [i.mean for i in found], [i.low for i in found], [i.high for i in found], "mean opinion")
    left.set_xlim(1, 5.4)
    left.set_xticks(range(1, 6))
    place, start = np.arange(len(tags))[::-1], np.zeros(len(tags))
    for value, grey in zip(range(1, 6), ("0.15", "0.35", "0.55", "0.75", "0.92"), strict=True):
        share = np.array([100 * (rated[rated["tag"] == tag]["rating"] == value).mean() for tag in tags])
        right.barh(place, share, left=start, color=grey, edgecolor="white", linewidth=0.5, height=0.7, label=str(value))
        start += share
    right.set_yticks(place, [""] * len(tags))
    right.set_xlim(0, 100)
    right.set_xlabel("ratings, %")
    right.legend(
        ncols=5, fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1, columnspacing=1
    )
    right.grid(visible=False, axis="y")
    return Plot(
        "opinion", figure, "Left: mean opinion with 95 % bootstrap intervals over words. Right: how ratings are spread."
    )


def _extremes(rated: pd.DataFrame) -> Table:
    means = (
        rated.groupby(["word", "tag"])["rating"]
        .agg(["mean", "size"])
        .reset_index()
        .sort_values("mean", ascending=False, kind="stable")
    )
    shown = means if len(means) <= 20 else pd.concat([means.head(10), means.tail(10)])
    frame = shown.assign(tag=shown["tag"].map(lambda tag: TAGS.get(tag, tag)))
    frame.columns = pd.Index(["word", "part of speech", "mean opinion", "ratings"])
    return Table("Best and worst words", frame, "At most ten of each.", digits=2)


def _setting(sheet: Sheet, found: Found, options: argparse.Namespace) -> str:
    pictures = len({item.picture for item in sheet.items})
    return (
        f"The sheet {sheet.id} has {len(sheet.items)} words of {pictures} pictures of {options.model} and {len(sheet.checks)} "
        f"attention checks; {len(found.rows)} words were measured, maps by the aggregation “{options.aggregation}”."
    )


def _how(sheet: Sheet) -> str:
    return (
        f"Give {SHEET} to your raters: it opens from disk in any browser, is used with the keyboard alone and asks nobody for "
        "anything. Each rater downloads a CSV file. Then run the same command with --ratings FILE… and all their files. "
        "Another --sheet-seed gives the same words in another order; answers of both belong together."
    )
