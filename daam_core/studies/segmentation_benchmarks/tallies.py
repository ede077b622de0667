"""Pixels of a label map against the true ones, counted by torchmetrics, and the scores of many pictures from their counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, multiclass_confusion_matrix

from .layouts import NOT_JUDGED

if TYPE_CHECKING:
    import pandas as pd

Labels = NDArray[np.int64]


def counts(predicted: Labels, truth: Labels, classes: int) -> dict[int, tuple[int, int, int]]:
    """Pixels of every class that is in either map: {class: (both, true, predicted)}, background 0 included.

    Args:
        predicted: int64 `[H, W]`, 0..classes.
        truth: the same, with `NOT_JUDGED` where nothing is counted.
        classes: how many there are besides the background.
    """
    if not (truth != NOT_JUDGED).any():
        return {}
    matrix = multiclass_confusion_matrix(
        torch.from_numpy(predicted).flatten(),
        torch.from_numpy(truth).flatten(),
        num_classes=classes + 1,
        ignore_index=NOT_JUDGED,
    )
    both, true, found = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    present = ((true + found) > 0).nonzero().flatten().tolist()
    return {i: (int(both[i]), int(true[i]), int(found[i])) for i in present}


def average_precision(heat: Tensor, truth: NDArray[np.bool_]) -> float:
    """Area under precision over recall of a map `[H, W]` against a mask; 0 where the mask is empty."""
    if not truth.any():
        return 0.0
    low, high = heat.amin(), heat.amax()
    scaled = (heat - low) / (high - low).clamp_min(1e-12)
    value = binary_average_precision(scaled.flatten(), torch.from_numpy(truth).flatten().long())
    return float(value)


def scores(rows: pd.DataFrame) -> Mapping[str, float]:
    """Scores of all pictures from the rows of their counts (columns class, both, true, predicted, ap).

    Returns:
        `mIoU`: mean over classes of the summed intersection over the summed union. `accuracy`: share of judged pixels that are
        right. `mAP`: mean of the pictures' average precision, where it was measured.
    """
    summed = rows.groupby("class")[["both", "true", "predicted"]].sum()
    union = summed["true"] + summed["predicted"] - summed["both"]
    found = {
        "mIoU": float((summed["both"] / union)[union > 0].mean()),
        "accuracy": float(summed["both"].sum() / max(1, summed["true"].sum())),
    }
    if "ap" in rows and rows["ap"].notna().any():
        found["mAP"] = float(rows["ap"].dropna().astype(float).mean())
    return found


def iou_by_class(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns class, iou, pictures: from the most frequent class on."""
    summed = rows.groupby("class").agg(
        both=("both", "sum"), true=("true", "sum"), predicted=("predicted", "sum"), pictures=("unit", "nunique")
    )
    union = summed["true"] + summed["predicted"] - summed["both"]
    table = summed.assign(iou=(summed["both"] / union).round(4)).reset_index()
    return table.sort_values(["pictures", "class"], ascending=[False, True])[["class", "iou", "pictures"]]
