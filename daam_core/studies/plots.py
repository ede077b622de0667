"""Figures for print: readable in grey, without pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers; lines also differ in dash and marker."""
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 6.3  # inches: the text width of a page


def new_figure(height: float = 3.6, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of a page's width, its `rows` x `columns` axes in the order of reading."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.3, linewidth=0.5)
        one.set_axisbelow(True)
    return figure, list(axes)


def curves(
    axes: Axes, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, title: str = ""
) -> None:
    """One line a name: (x values, y values)."""
    for (name, (x, y)), colour, dash, marker in zip(lines.items(), cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False):
        axes.plot(x, y, dash, color=colour, marker=marker, markersize=4, linewidth=1.4, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for all axes that share their lines, under them, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8, frameon=False)


def bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    x_label: str = "",
    title: str = "",
) -> None:
    """Horizontal bars, the first name on top, with intervals where `low` and `high` are given (NaN for none)."""
    place = np.arange(len(names))[::-1]
    heights = np.asarray(values, dtype=float)
    axes.barh(place, heights, color=COLOURS[0], height=0.7)
    if low is not None and high is not None:
        known = np.isfinite(np.asarray(low, dtype=float))
        ends = np.stack([heights - np.asarray(low), np.asarray(high) - heights])[:, known].clip(min=0)
        axes.errorbar(heights[known], place[known], xerr=ends, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.set_yticks(place, names, fontsize=8)
    axes.set_xlabel(x_label)
    axes.set_title(title, fontsize=10)
    axes.grid(visible=False, axis="y")
