"""Why the prompt report's two thresholds are what they are: `python -m benchmarks.report_thresholds [--count 100]`.

Prompts of three objects are more than the embedded model learnt, so it often leaves one out; the segmenter tells which.
A word whose object is missing should be called neglected, and two nouns whose objects both stand there should not be
called entangled. Thresholds are read off one half of the prompts and counted on the other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import mean, quantiles

import numpy as np
import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.maps.statistics import ENTANGLED_IOU, NEGLECTED_CONTRAST, mean_probability, prompt_report
from daam_core.masks import minmax, threshold
from daam_core.masks.metrics import iou
from daam_core.tiny.captions import Thing, caption, random_pairs
from daam_core.tiny.load import load_segmenter, load_tiny

from .report import table, write

SEEDS = {"tune": 61_000, "report": 62_000}
BATCH = 10


@dataclass(frozen=True)
class Seen:
    """One picture: each named noun's contrast and whether it is there; each noun pair's overlap and whether both are."""

    contrast: list[tuple[float, bool]]
    overlap: list[tuple[float, bool]]


def pictures(objects: int, count: int, seed: int) -> list[Seen]:
    pipe, judge = load_tiny(), load_segmenter()
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(seed)
    pairs = [random_pairs(rng, objects) for _ in range(count)]
    texts = [caption([Thing(noun, colour) for colour, noun in one]).text for one in pairs]
    seen: list[Seen] = []
    for start in tqdm(range(0, count, BATCH), desc=f"{objects} objects"):
        part = range(start, min(start + BATCH, count))
        with trace(pipe) as recording:
            drawn = pipe([texts[k] for k in part], generator=[torch.Generator().manual_seed(seed + k) for k in part]).images
        for row, (k, there) in enumerate(zip(part, judge.find(drawn), strict=True)):
            maps, nouns = recording.heat_maps(row), [noun for _, noun in pairs[k]]
            contrast = {w.word: w.contrast for w in prompt_report(maps, nouns).words}
            masks = threshold(minmax(mean_probability(maps, nouns).clamp(min=0)), 0.4)
            seen.append(
                Seen(
                    [(contrast[noun], noun in there) for noun in nouns],
                    [
                        (float(iou(masks[a], masks[b]).nan_to_num(0.0)), nouns[a] in there and nouns[b] in there)
                        for a in range(objects)
                        for b in range(a)
                    ],
                )
            )
    return seen


def best_cut(values: list[tuple[float, bool]]) -> float:
    """The contrast below which a word is called neglected with the best mean of both rates."""
    cuts = sorted({v for v, _ in values})
    return max(cuts, key=lambda cut: sum(rates(values, cut)))


def rates(values: list[tuple[float, bool]], cut: float) -> tuple[float, float]:
    """(share of missing objects called neglected, share of present ones not called so)."""
    missing = [v < cut for v, there in values if not there]
    present = [v >= cut for v, there in values if there]
    return (mean(missing) if missing else 1.0), (mean(present) if present else 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    halves = {half: pictures(2, args.count, seed) + pictures(3, args.count, seed + 500) for half, seed in SEEDS.items()}
    contrast = {half: [x for s in seen for x in s.contrast] for half, seen in halves.items()}
    overlap = {half: [x for s in seen for x in s.overlap] for half, seen in halves.items()}
    cut = best_cut(contrast["tune"])
    both = [v for v, there in overlap["tune"] if there]
    rows = []
    for name, value in (("read off the tune half", cut), ("in use", NEGLECTED_CONTRAST)):
        caught, kept = rates(contrast["report"], value)
        counts = [f"{caught:.1%} of missing", f"{1 - kept:.1%} of present"]
        rows.append(["neglected: contrast below", name, f"{value:.2f}", *counts])
    for name, value in (("99 % of pairs drawn, tune half", quantiles(both, n=100)[98]), ("in use", ENTANGLED_IOU)):
        called = [mean(v > value for v, t in overlap["report"] if t is there) for there in (False, True)]
        counts = [f"{called[0]:.1%} of failed pairs", f"{called[1]:.1%} of drawn"]
        rows.append(["entangled: IoU above", name, f"{value:.2f}", *counts])
    missing = sum(not there for _, there in contrast["report"])
    body = table(["rule", "threshold", "value", "called, rightly", "called, wrongly"], rows)
    write(
        "Thresholds of the prompt report",
        f"{body}\n\n{missing} of {len(contrast['report'])} nouns are missing from the report half's pictures.",
    )


if __name__ == "__main__":
    main()
