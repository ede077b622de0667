"""Krippendorff's alpha for ordinal ratings: how far raters agree beyond chance (Krippendorff 2011, "Computing alpha")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ordinal_alpha(ratings: NDArray[np.float64], scale: Sequence[float]) -> float:
    """Alpha = 1 - observed / expected disagreement: 1 is agreement, 0 is what chance gives, below 0 is worse than chance.

    Args:
        ratings: float64 `[raters, items]`, NaN where somebody gave none. Items with fewer than two ratings do not count.
        scale: the values there are, in their order.

    Returns:
        The coefficient; NaN where only one value was given, because then chance leaves nothing to get wrong.

    Raises:
        ValueError: a rating that is not on the scale.
    """
    values = np.asarray(scale, dtype=np.float64)
    if not np.isin(ratings[~np.isnan(ratings)], values).all():
        raise ValueError(f"There are ratings that are none of {list(scale)}.")
    counts = (ratings[..., None] == values).sum(0).astype(np.float64)  # [items, values]
    counts = counts[counts.sum(1) >= 2]
    pairs = counts.sum(1, keepdims=True) - 1
    # Each pair of ratings of one item counts 1 / (ratings of the item - 1): the matrix of coincidences, [values, values].
    weighted = counts / pairs
    coincidences = counts.T @ weighted - np.diag(weighted.sum(0))
    totals = coincidences.sum(1)
    distances = _ordinal_distances(totals)
    expected = totals @ distances @ totals / (totals.sum() - 1) if totals.sum() > 1 else 0.0
    return float(1 - (coincidences * distances).sum() / expected) if expected else float("nan")


def _ordinal_distances(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of two values: how many ratings lie between them, half of those at both ends."""
    upto = np.cumsum(totals) - totals / 2
    return np.asarray((upto[:, None] - upto[None]) ** 2, dtype=np.float64)
