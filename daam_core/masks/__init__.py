"""From heat maps to masks: pure functions over float32 `[..., h, w]` maps and uint8 `[H, W, 3]` pictures."""

from .figure_ground import DEFAULT, Settings, best, rivals
from .grabcut import snap_grabcut
from .guided_filter import snap_guided
from .morphology import drop_small, feather, fill_holes, grow, invert, shrink
from .propagate import walk
from .resize import resized
from .threshold import compete, minmax, otsu, soft, threshold, winners

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
