"""What `daam-lens` writes of what the text attended to: the matrix of words, where each word looks, and both as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import file_names, write_png

if TYPE_CHECKING:
    from ..maps.heatmaps import HeatMaps

MATRIX = "word_matrix.png"
MOST_WORDS = 64
"""Rows and columns of the matrix."""


def write_relations(maps: HeatMaps, words: Sequence[str], folder: Path, args: argparse.Namespace) -> list[Path]:
    """`word_matrix.png` and, for each word, `looks_WORD.png`, as far as they were recorded. Raises CannotWrite."""
    from ..render import word_matrix_table, word_overlay

    kept, paths = maps.relations, []
    if kept is None:
        return []
    if kept.text_to_text is not None and words:
        paths.append(write_png(folder / MATRIX, word_matrix_table(maps, words[:MOST_WORDS], colormap=args.colormap)))
    if kept.text_to_image:
        where = maps.relation("text->image").sum_frames()
        where = where if where.picture is not None else where.with_picture(_grey(where.size))
        for word, name in zip(words, file_names(words), strict=True):
            drawn = word_overlay(where, word, opacity=args.opacity, colormap=args.colormap, label=f"{word} looks at")
            paths.append(write_png(folder / f"looks_{name}.png", drawn))
    return paths


def relation_entries(maps: HeatMaps, words: Sequence[str]) -> dict[str, Any]:
    """What the JSON report holds of it: the matrix `[query][key]`, 0 to 1, and what each word leans on most; nothing where
    text->text was not kept."""
    from dataclasses import asdict

    from ..maps.relations import leanings

    if maps.relations is None or maps.relations.text_to_text is None or not words:
        return {}
    words = words[:MOST_WORDS]
    values = maps.word_matrix(words)
    rows = [[round(value, 6) for value in row] for row in values.tolist()]
    return {"words": list(words), "text_to_text": rows, "leaning": [asdict(one) for one in leanings(words, values)]}


def relation_notes(maps: HeatMaps, words: Sequence[str]) -> list[str]:
    """That the matrix has not all of the words, where it has not."""
    if maps.relations is None or maps.relations.text_to_text is None or len(words) <= MOST_WORDS:
        return []
    return [f"The matrix of words has the first {MOST_WORDS} of {len(words)} words; --words chooses others."]


def _grey(size: tuple[int, int]) -> Any:
    import numpy as np

    return np.full((*size, 3), 128, np.uint8)
