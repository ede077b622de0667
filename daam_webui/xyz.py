"""Axes for the host's own X/Y/Z plot."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from daam_core.masks.methods import MASK_METHODS

from . import hosts
from .plot_overrides import override

logger = logging.getLogger("daam_lens")
LABEL = "[DAAM Lens] "
CONCEPTS = f"{LABEL}also look for"


def add_axes() -> None:
    """`on_before_ui`: append our axes once, wherever the plot's script was loaded."""
    plot = _plot()
    if plot is None or any(str(option.label).startswith(LABEL) for option in plot.axis_options):
        return
    axis = plot.AxisOption
    found = [
        axis(f"{LABEL}words", str, _apply("words", maps=False, overlays=True, masks=False)),
        axis(CONCEPTS, str, _apply("concepts", maps=False, overlays=True, masks=False)),
        axis(f"{LABEL}threshold", float, _apply("tau", masks=True, overlays=False, maps=False)),
        axis(
            f"{LABEL}mask method",
            str,
            _apply("method", masks=True, overlays=False, maps=False),
            choices=lambda: list(MASK_METHODS),
        ),
        axis(
            f"{LABEL}layers",
            str,
            _apply("layers", overlays=True, maps=False, masks=False),
            choices=lambda: ["all", "down", "mid", "up"],
        ),
    ]
    # Into the list itself: SD.Next has two scripts of plots, which share it. It reads no words that are not in the prompt.
    plot.axis_options.extend(one for one in found if hosts.page_host().reads_concepts() or one.label != CONCEPTS)


def _plot() -> Any:
    from modules import scripts

    for data in scripts.scripts_data:
        if str(getattr(data, "path", "")).replace("\\", "/").endswith("xyz_grid.py"):
            return data.module
    return sys.modules.get("xyz_grid")


def _apply(name: str, **shown: bool) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, _values: Any) -> None:
        override(p, **shown, **{name: value})

    return apply
