"""What a reader of docs/results.md wants to know first: what each mask method reaches where, out of the tables behind it."""

from __future__ import annotations

import re

METHODS = {
    "best": "the default: late steps, one step along self-attention, cut by colour where figure and ground differ",
    "grabcut": "compete, then cut along the picture's colours",
    "otsu": "a level found by itself",
    "threshold": "the paper's Eq. 7: what is above a part of the maximum",
    "castorini's rule": "castorini/daam's maps, thresholded",
    "guided": "compete, snapped to the picture's edges",
    "compete": "Eq. 7 less the places of other objects",
    "walk": "one step along self-attention, then compete",
}
"""By the beginning of their line in the tables of `daam-lens study masks`."""
COLUMNS = (
    ("generated pictures", "one object"),
    ("generated pictures", "two objects"),
    ("rendered scenes, flat", "two objects"),
    ("rendered scenes, shaded", "two objects"),
)


def mask_summary(results: str) -> str:
    """A table of mean IoU by method and truth, from the sections "Masks: …" of docs/results.md. Raises LookupError."""
    lines = ["| mask | " + " | ".join(f"{truth}, {kind}" for truth, kind in COLUMNS) + " | what it does |"]
    lines.append("| --- |" + " --- |" * (len(COLUMNS) + 1))
    rows = {method: [_cell(results, truth, method, kind) for truth, kind in COLUMNS] for method in METHODS}
    for method in sorted(rows, key=lambda name: -float(rows[name][1])):
        lines.append(f"| {method} | {' | '.join(rows[method])} | {METHODS[method]} |")
    return "\n".join(lines)


def _cell(results: str, truth: str, method: str, kind: str) -> str:
    title = f"## Masks: the model inside, {truth}\n"
    if results.count(title) != 1:
        raise LookupError(f"docs/results.md has {results.count(title)} sections {title.strip()!r}")
    section = results.split(title)[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    head = rows[0]
    column = next((i for i, name in enumerate(head) if name.startswith(kind + " (")), None)
    row = next((row for row in rows if re.match(rf"{re.escape(method)}(:|$)", row[0])), None)
    if column is None or row is None:
        raise LookupError(f"the masks of {truth} have no {kind!r} of {method!r}")
    return row[column].split(" ")[0]
