"""How well word maps segment (paper, section 4.1: Table 1, Fig. 4 and 5)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..cli.argument_types import whole_argument
from ..errors import WordNotFound
from ..render.overlay import blend_heatmap
from . import baselines, segmentation_report
from . import castorini_package as package
from .ground_truth import OUTSIDE, Observed, add_truth_options, measured_segmenter, observe, truth_units
from .report import Report
from .scoring import no_scores, scores
from .study import Found, Measured, Picture, Row, Study, Unit

if TYPE_CHECKING:
    from .model_runner import ModelRunner

EXAMPLES = 4
"""So many pictures of each split are kept for the report."""


class SegmentationStudy(Study):
    """IoU, Dice and pixel accuracy of noun masks against baselines, over thresholds."""

    name = "segmentation"
    outside = OUTSIDE | {"closed"}

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        add_truth_options(parser)
        parser.add_argument(
            "--closed",
            type=whole_argument(1),
            default=6,
            metavar="K",
            help="the closed set is the K most common nouns (default: 6 of the embedded world's 12; the paper: COCO's 80)",
        )
        parser.add_argument(
            "--with-package",
            action="store_true",
            help="also run castorini's own package (PyPI: daam) on the same prompts and seeds, which doubles the time",
        )

    def units(self, options: argparse.Namespace) -> list[Unit]:
        if options.with_package:
            package.check()
        return truth_units(options)

    def measure(self, unit: Unit, runner: ModelRunner, options: argparse.Namespace) -> Measured:
        if "scenes" in unit.content:
            return measured_segmenter(unit)
        seen = observe(unit, runner, options, keep=("heads",))
        theirs = package.masks(unit, runner, seen) if options.with_package else {}
        rows: list[Row] = []
        pictures: dict[str, Picture] = {}
        for word, truth in seen.masks.items():
            about = _about(unit, word, seen)
            try:
                found_masks = _masks(seen, unit, word, (truth.shape[0], truth.shape[1]))
            except WordNotFound:
                rows.append({**about, "mask": "absent word", "tau": None, **no_scores()})
                continue
            for (name, tau), mask in {**found_masks, **theirs.get(word, {})}.items():
                rows.append({**about, "mask": name, "tau": tau, **scores(mask, truth)})
            if unit.content["number"] < EXAMPLES:
                pictures[word] = _example(seen, word, truth, found_masks["default", None])
        rows += [{**_about(unit, word, seen), "mask": "unseen", "tau": None, **no_scores()} for word in seen.unseen]
        return Measured(rows, pictures)

    def conclude(self, found: Found, options: argparse.Namespace) -> Report:
        return segmentation_report.conclude(found, options)


def _about(unit: Unit, word: str, seen: Observed) -> Row:
    content = unit.content
    return {
        "split": content["split"], "prompt": content["prompt"], "seed": content["seed"], "word": word,
        "difference": seen.difference,
    }  # fmt: skip


def _masks(seen: Observed, unit: Unit, word: str, size: tuple[int, int]) -> dict[tuple[str, float | None], Tensor]:
    """Every mask of one word by name and threshold. Raises WordNotFound."""
    sample = seen.sample
    masks: dict[tuple[str, float | None], Tensor] = {}
    masks |= {("paper", tau): mask for tau, mask in baselines.paper_masks(sample.paper, word, size).items()}
    if sample.castorini is not None:  # a rule of UNets
        theirs = baselines.castorini_masks(sample.castorini, word, size)
        masks |= {("castorini", tau): mask for tau, mask in theirs.items()}
    masks["default", None] = sample.maps.mask(word, size=size)
    masks |= {(name, None): mask for name, mask in baselines.blind(size, f"{unit.key}/{word}").items()}
    if seen.segmented is not None:
        masks[baselines.SEGMENTER, None] = seen.segmented.get(word, torch.zeros(size, dtype=torch.bool))
    return masks


def _example(seen: Observed, word: str, truth: Tensor, mask: Tensor) -> Picture:
    """Picture, heat, true mask and default mask side by side: uint8 `[H, 4 W, 3]`."""
    image = seen.sample.image
    size = (image.shape[0], image.shape[1])
    heat = blend_heatmap(image, seen.sample.maps.heat_map(word, size))
    panels = [image, heat, _cut(image, truth), _cut(image, mask)]
    return np.concatenate(panels, axis=1)


def _cut(image: Picture, mask: Tensor) -> Picture:
    """The picture where the mask is, pale elsewhere."""
    pale: Any = (image.astype(np.float32) * 0.15 + 255 * 0.85).round().astype(np.uint8)
    shown: Picture = np.where(mask.numpy()[..., None], image, pale)
    return shown
