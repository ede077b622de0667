"""From heat maps to masks: pure functions over float32 `[..., h, w]` maps and uint8 `[H, W, 3]` pictures."""

from .figure_ground import DEFAULT, Settings, best
from .grabcut import snap_grabcut
from .guided_filter import snap_guided
from .metrics import dice, iod, ioh, iou, pixel_accuracy
from .morphology import Cleanup, drop_small, feather, fill_holes, grow, invert, per_cent, shrink
from .propagate import walk
from .resize import resized
from .rivals import compete_with_rivals, rivals
from .threshold import compete, minmax, otsu, soft, stretched, threshold, winners

__all__ = [
    "DEFAULT",
    "Cleanup",
    "Settings",
    "best",
    "compete",
    "compete_with_rivals",
    "dice",
    "drop_small",
    "feather",
    "fill_holes",
    "grow",
    "invert",
    "iod",
    "ioh",
    "iou",
    "minmax",
    "otsu",
    "per_cent",
    "pixel_accuracy",
    "resized",
    "rivals",
    "shrink",
    "snap_grabcut",
    "snap_guided",
    "soft",
    "stretched",
    "threshold",
    "walk",
    "winners",
]
