"""From heat maps to masks: pure functions over float32 ``[..., h, w]`` maps and uint8 ``[H, W, 3]`` pictures."""

from .cleanup import drop_small, feather, fill_holes, grow, invert, shrink
from .figure import DEFAULT, Settings, best, rivals
from .levels import compete, minmax, otsu, soft, threshold, winners
from .refine import walk
from .snap import resized, snap_grabcut, snap_guided

__all__ = [
    "DEFAULT",
    "Settings",
    "best",
    "compete",
    "drop_small",
    "feather",
    "fill_holes",
    "grow",
    "invert",
    "minmax",
    "otsu",
    "resized",
    "rivals",
    "shrink",
    "snap_grabcut",
    "snap_guided",
    "soft",
    "threshold",
    "walk",
    "winners",
]
