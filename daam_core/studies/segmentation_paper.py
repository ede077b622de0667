"""The paper's Table 1 beside this model's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .baselines import SEGMENTER, WHOLE
from .report import Table

Figures = tuple[float, float, float, float]
COLUMNS = ("ordinary, closed", "ordinary, open", "unreal, closed", "unreal, open")
PAPER_COLUMNS = ("COCO-Gen mIoU-80", "COCO-Gen mIoU-∞", "Unreal-Gen mIoU-80", "Unreal-Gen mIoU-∞")
PAPER: Mapping[str, Figures] = {
    "Mask R-CNN (supervised)": (82.9, 32.1, 76.4, 31.2),
    "QueryInst (supervised)": (80.8, 31.3, 78.3, 35.0),
    "Mask2Former (supervised)": (84.0, 32.5, 80.0, 36.7),
    "CLIPSeg (open vocabulary)": (78.6, 71.6, 74.6, 70.9),
    "whole image": (20.4, 21.1, 19.5, 19.3),
    "PiCIE+H (unsupervised)": (31.3, 25.2, 34.9, 27.8),
    "STEGO (unsupervised)": (35.8, 53.6, 42.9, 54.5),
    "DAAM-0.3": (64.7, 59.1, 59.1, 58.9),
    "DAAM-0.4": (64.8, 60.7, 60.8, 58.3),
    "DAAM-0.5": (59.0, 55.4, 57.9, 52.5),
}
"""Mean IoU in percent of SD 2 base (paper, Table 1)."""
PAPER_ACCURACY: Mapping[str, tuple[float, float]] = {
    "CLIPSeg (open vocabulary)": (90, 72),
    "DAAM-0.4": (90, 68),
    "Mask2Former (supervised)": (85, 30),
}
"""Pixel accuracy and Dice in percent, COCO-Gen, all nouns."""
HERE: Mapping[str, tuple[tuple[str, str, float | None], ...]] = {
    "whole image": (("whole image", WHOLE, None),),
    **{
        f"DAAM-{tau}": ((f"DAAM-{tau}, Eq. 7", "paper", tau), (f"DAAM-{tau}, castorini's rule", "castorini", tau))
        for tau in (0.3, 0.4, 0.5)
    },
}
"""The lines of the paper that this study has: each as (name, mask, threshold)."""


def beside_the_paper(scored: pd.DataFrame, closed: Sequence[str], judged: bool) -> Table:
    """Mean IoU in percent, here and there; "-" where one of the two has no such line.

    `judged`: the segmenter is the truth, so that it cannot stand in the table.
    """
    lines = [] if judged else [_line("segmenter of the same world (supervised)", None, _here(scored, closed, SEGMENTER, None))]
    for name, figures in PAPER.items():
        for label, mask, tau in HERE.get(name, ((name, "", None),)):
            lines.append(_line(label, figures, _here(scored, closed, mask, tau)))
    lines.append(_line("default mask", None, _here(scored, closed, "default", None)))
    caption = (
        "In percent. The paper's figures are of SD 2 base, 500 + 500 prompts, masks drawn by people; closed is COCO's 80 "
        f"classes there and the {len(closed)} most common nouns here. The order of lines can be compared, the numbers cannot: "
        "two objects in a picture book are not a photograph."
    )
    return Table("Beside the paper", pd.DataFrame(lines), caption, digits=1)


def accuracy_beside_the_paper(scored: pd.DataFrame) -> Table:
    """Pixel accuracy and Dice in percent on ordinary prompts, here and there."""
    ordinary = scored[scored["group"] == "ordinary"]
    lines = []
    for name, figures in PAPER_ACCURACY.items():
        for label, mask, tau in HERE.get(name, ((name, "", None),)):
            part = _of(ordinary, mask, tau)
            accuracy, dice = 100 * part["pixel_accuracy"].mean(), 100 * part["dice"].mean()
            lines.append(
                {"mask": label, "pixel accuracy, here": accuracy, "Dice, here": dice, "pixel accuracy, paper": figures[0],
                 "Dice, paper": figures[1]}
            )  # fmt: skip
    return Table("Pixel accuracy and Dice beside the paper", pd.DataFrame(lines), "In percent, ordinary prompts, all nouns.", 1)


def _of(rows: pd.DataFrame, mask: str, tau: float | None) -> pd.DataFrame:
    part = rows[rows["mask"] == mask]
    return part if tau is None else part[part["tau"] == tau]


def _line(name: str, paper: Figures | None, here: Sequence[float]) -> dict[str, object]:
    line: dict[str, object] = {"mask": name}
    line |= {f"{column}, here": value for column, value in zip(COLUMNS, here, strict=True)}
    line |= dict(zip(PAPER_COLUMNS, paper or (np.nan,) * 4, strict=True))
    return line


def _here(scored: pd.DataFrame, closed: Sequence[str], mask: str, tau: float | None) -> list[float]:
    part = _of(scored, mask, tau)
    found = []
    for group in ("ordinary", "unreal"):
        there = part[part["group"] == group]
        found += [100 * there[there["word"].isin(list(closed))]["iou"].mean(), 100 * there["iou"].mean()]
    return found
