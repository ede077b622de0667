"""Why the prompt report's thresholds are what they are: `python -m benchmarks.report_thresholds [--count 100]`.

Prompts of three objects are more than the embedded model learnt, so it often leaves one out; the segmenter tells which.
A word whose object is missing should be called so, two nouns should be called entangled where one of their objects is
missing, and no colour or place of a right picture should be called anything. Thresholds are chosen on every other prompt
and counted on the rest.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from daam_core import trace
from daam_core.maps.prompt_report import ReportThresholds, prompt_report
from daam_core.maps.report_fit import MOST_FALSE, Measured, Rates, fit, measure, rates
from daam_core.tiny.captions import BACKGROUNDS, COLOUR_NAMES, PLACES, Background, Thing, caption, random_pairs
from daam_core.tiny.load import load_segmenter, load_tiny
from daam_core.tiny.precision import autocast

from .report import table, write

SEED = 61_000
BATCH = 10


@dataclass(frozen=True)
class Seen:
    """One picture: what the rules look at; colours and places of a right picture, and those of them that were accused."""

    measured: Measured
    others: int
    accused: int


def pictures(objects: int, count: int, seed: int, weights: Path | None) -> list[Seen]:
    pipe, judge = load_tiny(weights=weights), load_segmenter(weights=weights)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(seed)
    pairs = [random_pairs(rng, objects) for _ in range(count)]
    texts = [_text(rng, one) for one in pairs]
    seen: list[Seen] = []
    for start in tqdm(range(0, count, BATCH), desc=f"{objects} objects"):
        part = range(start, min(start + BATCH, count))
        with trace(pipe) as recording, autocast(torch.device("cpu")):
            drawn = pipe([texts[k] for k in part], generator=[torch.Generator().manual_seed(seed + k) for k in part]).images
        for row, (k, there) in enumerate(zip(part, judge.find(drawn), strict=True)):
            maps = recording.heat_maps(row)
            measured = measure(maps, {noun: noun in there for _, noun in pairs[k]})
            right = all(noun in there and there[noun].colour == colour for colour, noun in pairs[k])
            report = prompt_report(maps)
            called = {*report.neglected, *(word for pair in report.entangled for word in pair[:2])}
            others = [w for w in maps.content_words if w.split("#")[0] in _OTHERS]
            seen.append(Seen(measured, len(others), sum(w in called for w in others)) if right else Seen(measured, 0, 0))
    return seen


_OTHERS = {*COLOUR_NAMES, *(word for place in PLACES.values() for word in place.split())}


def _text(rng: np.random.Generator, pairs: list[tuple[str, str]]) -> str:
    background: Background = BACKGROUNDS[int(rng.integers(0, len(BACKGROUNDS)))]
    return caption([Thing(noun, colour) for colour, noun in pairs], "and", background).text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="prompts of two objects, and as many of three")
    parser.add_argument("--weights", type=Path, help="folder that 'daam-lens tiny train' made")
    args = parser.parse_args()
    two, three = (pictures(n, args.count, SEED + 500 * n, args.weights) for n in (2, 3))
    seen = [one for pair in zip(two, three, strict=True) for one in pair]
    # Two and three objects in turn: every other pair of prompts reports.
    order = [k for k in range(len(seen)) if k % 4 < 2], [k for k in range(len(seen)) if k % 4 >= 2]
    found = fit([seen[k].measured for pair in zip(*order, strict=False) for k in pair])
    now = ReportThresholds()
    others = [seen[k].measured for k in order[1]]
    rows = [
        _row("missing: places below", "chosen here", found.words),
        _row("missing: places below", "in use", rates([v for one in others for v in one.won], now.won)),
        _row("entangled: places below", "chosen here", found.pairs),
        _row("entangled: places below", "in use", rates([v for one in others for v in one.led], now.led)),
    ]
    body = table(["rule", "threshold", "value", "named, missing", "named, there"], rows)
    total, accused = sum(one.others for one in seen), sum(one.accused for one in seen)
    write(
        "Thresholds of the prompt report",
        f"{body}\n\nAt most {MOST_FALSE:.0%} false on the half to choose on. Of {total} colours and places in right pictures "
        f"{accused} are accused.",
    )


def _row(rule: str, name: str, found: Rates) -> list[str]:
    parts = [
        "-" if part is None else f"{part:.1%} of {n}" for part, n in ((found.found, found.missing), (found.false, found.there))
    ]
    return [rule, name, f"{found.cut:.4f}", *parts]


if __name__ == "__main__":
    main()
