"""Small random transformers of every family that is read, by name."""

from __future__ import annotations

from .model_case import Case, build
from .picture_models import PICTURE_CASES
from .video_models import VIDEO_CASES

__all__ = ["CASES", "Case", "build"]

CASES: dict[str, Case] = {**PICTURE_CASES, **VIDEO_CASES}
