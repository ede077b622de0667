"""From the heat of labels to a label map, as the papers do it; and the true map at the size at which it is judged.

- "concept-attention" (ConceptAttention, 2025): the class and some background words; of ImageNet-Segmentation what is hotter
  than the mean of the class's own map, of the others (pictures of one class) the places where the class is the hottest label.
  Judged at 224 x 224, nearest, class against background.
- "classes-given" (Seg4Diff, GoCA): the classes that are in the picture, the hottest of them at each place. Judged at the
  picture's own size. Without a background the places of none are not judged (VOC20); with one, places where the winner is below
  a share of its own range are background.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...masks.threshold import stretched
from .layouts import NOT_JUDGED

JUDGED_SIDE = 224
PROTOCOLS = ("concept-attention", "classes-given")
BACKGROUND_WORDS = {
    "imagenet-segmentation": ("background", "floor", "tree", "person", "grass", "face"),
    "voc": ("background", "floor", "grass", "tree", "sky"),
    "coco-object": ("background", "floor", "grass", "tree", "sky"),
}
"""Those of ConceptAttention's scripts (COCO: VOC's)."""
Labels = NDArray[np.int64]


def above_mean(heat: Tensor) -> Tensor:
    """bool `[H, W]`: where a map `[H, W]` is above its own mean; nowhere on an even map."""
    return heat > heat.mean()


def hottest(heats: Tensor, classes: Sequence[int], background: float | None = None) -> Labels:
    """The hottest label at each place.

    Args:
        heats: `[labels, H, W]`.
        classes: the number of each label; 0 for background words.
        background: a share 0..1; where the winner's own map, stretched to 0..1, is below it, the label is 0. None: nowhere.

    Returns:
        int64 `[H, W]`; the first of labels that are equally hot.
    """
    winner = heats.argmax(0)
    labels = torch.tensor(list(classes), dtype=torch.int64)[winner]
    if background is not None:
        own = stretched(heats).gather(0, winner[None])[0]
        labels = torch.where(own < background, 0, labels)
    return labels.numpy()


def judged_at(labels: NDArray[np.generic], side: int = JUDGED_SIDE) -> Labels:
    """A label map or mask `[H, W]` at `side` x `side`, nearest: position i is the old one at floor((i + 1/2) * H / side)."""
    small = cv2.resize(labels.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return small.astype(np.int64)


def without_background(truth: Labels) -> Labels:
    """The true map with the places of no class not judged."""
    return np.where(truth == 0, NOT_JUDGED, truth)
