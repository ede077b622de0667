"""`daam-lens compare`: what a LoRA, or anything else that differs between two records, did to each word."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..files import file_names, relative_path, writable_folder, write_png, write_text


def compare(args: argparse.Namespace) -> None:
    """`daam-lens compare`: a line a word; with `--out` a picture for each, and the numbers."""
    import numpy as np

    from ..maps.heatmaps import HeatMaps

    found = HeatMaps.load(args.after).compare(HeatMaps.load(args.before), args.words)
    print("\n".join(found.lines()))
    if args.out is None:
        return
    folder = writable_folder(Path(args.out))
    words = [change.word for change in found.changes]
    if found.after.picture is not None:
        for word, name in zip(words, file_names(words), strict=True):
            print(relative_path(write_png(folder / f"change_{name}.png", np.asarray(found.overlay(word)))))
    numbers = {"moved": round(found.moved, 6), "words": [asdict(change) for change in found.changes]}
    print(relative_path(write_text(folder / "comparison.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")))
