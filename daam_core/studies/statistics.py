"""Means with confidence intervals: bootstrap over prompts, by scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000
LEVEL = 0.95
SEED = 7


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; `low` and `high` are NaN where fewer than two groups were seen."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if np.isfinite(self.low) else f"{self.mean:.3f}"


def mean_interval(
    values: pd.Series[float] | Sequence[float], groups: Sequence[Any] | pd.Series[Any], resamples: int = RESAMPLES
) -> Interval:
    """The mean of `values` and its 95 % bootstrap interval (percentiles), drawing whole `groups` (prompts) with replacement.

    Masks of one prompt, its seeds included, are no independent observations: drawing them apart would make the interval too
    narrow. NaN values are left out. Deterministic.
    """
    import pandas as pd
    from scipy.stats import bootstrap

    frame = pd.DataFrame({"value": np.asarray(values, dtype=float), "group": list(groups)}).dropna(subset=["value"])
    if frame.empty:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    by_group = frame.groupby("group", sort=True)["value"].agg(["sum", "count"])
    mean = float(frame["value"].mean())
    if len(by_group) < 2:
        return Interval(mean, float("nan"), float("nan"), len(frame))
    found = bootstrap(
        (by_group["sum"].to_numpy(), by_group["count"].to_numpy()),
        _ratio_of_sums,
        n_resamples=resamples,
        confidence_level=LEVEL,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(frame))


def _ratio_of_sums(total: NDArray[Any], count: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    ratio: NDArray[Any] = total.sum(axis) / count.sum(axis)
    return ratio
