"""Values that every host, the command line and Python start from, each named once."""

from __future__ import annotations

DEFAULT_TAU = 0.4
"""Level of a mask as a share of a map's maximum: the middle of the paper's three (Eq. 7)."""
DEFAULT_NOISE = (300, 200, 100, 50)
"""Levels of noise at which a picture is read, in thousandths of a model's training: chosen by the study `reading` on rendered
scenes, reported on others."""
DEFAULT_OPACITY = 0.85
"""How strongly the colours of a heat map cover the picture, 0..1."""
