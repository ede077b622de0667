"""Points and boxes drawn on a picture: what a segmenter is asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..masks.points import Box, Point
from ..opencv import cv2
from .overlay import Picture, as_picture

_POSITIVE, _NEGATIVE, _BOX, _EDGE = (88, 214, 120), (236, 92, 92), (255, 214, 92), (16, 16, 20)


def mark_points(picture: Picture, positive: Sequence[Point], negative: Sequence[Point], boxes: Sequence[Box]) -> Picture:
    """The picture with a green plus at each positive point, a red cross at each negative one, and a line around each box.

    Args:
        picture: uint8 `[H, W, 3]`.

    Returns:
        uint8 `[H, W, 3]`, a copy.
    """
    drawn = as_picture(picture).copy()
    side = min(drawn.shape[:2])
    line, arm = max(1, side // 200), max(3, side // 40)
    for box in boxes:
        corners = (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(drawn, *corners, _EDGE, line + 2)
        cv2.rectangle(drawn, *corners, _BOX, line)
    for points, colour, kind in ((positive, _POSITIVE, cv2.MARKER_CROSS), (negative, _NEGATIVE, cv2.MARKER_TILTED_CROSS)):
        for point in points:
            cv2.drawMarker(drawn, point, _EDGE, kind, 2 * arm + 2, line + 4)
            cv2.drawMarker(drawn, point, colour, kind, 2 * arm, line + 1)
    return drawn
