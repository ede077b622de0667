"""Two-sided tests by scipy and statsmodels, with multiple comparisons by Holm's method; NaN where a test is impossible."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def welch(first: ArrayLike, second: ArrayLike) -> float:
    """p of Welch's t-test of equal means, two-sided, observations taken as independent; NaN values are left out."""
    from scipy.stats import ttest_ind

    a, b = _finite(first), _finite(second)
    if min(len(a), len(b)) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one side without spread: the other side's alone is what is tested then
        return float(ttest_ind(a, b, equal_var=False).pvalue)


def clustered(first: ArrayLike, second: ArrayLike, first_groups: Iterable[Any], second_groups: Iterable[Any]) -> float:
    """p of equal means where values of one group (prompt) hang together: least squares on a dummy, cluster-robust errors.

    Groups may hold values of both sides. At least 5 groups a side: fewer tell nothing about the spread between groups.
    """
    import statsmodels.api as sm

    values = np.concatenate([np.asarray(first, float), np.asarray(second, float)])
    side = np.concatenate([np.ones(len(np.asarray(first))), np.zeros(len(np.asarray(second)))])
    names = np.asarray([*map(str, first_groups), *map(str, second_groups)])
    kept = np.isfinite(values)
    values, side, names = values[kept], side[kept], names[kept]
    if min(len(set(names[side == 1])), len(set(names[side == 0]))) < 5 or np.ptp(values) == 0:
        return math.nan
    codes = np.unique(names, return_inverse=True)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = sm.OLS(values, sm.add_constant(side)).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    return float(fit.pvalues[1])


def paired(first: ArrayLike, second: ArrayLike, groups: Iterable[Any]) -> float:
    """p of Wilcoxon's signed-rank test of first against second, two-sided, on the means of each group (prompt)."""
    import pandas as pd
    from scipy.stats import wilcoxon

    difference = np.asarray(first, float) - np.asarray(second, float)
    means = pd.Series(difference).groupby(pd.Series(list(groups), dtype=object).astype(str)).mean().dropna().to_numpy()
    if len(means) < 2 or not np.any(means):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few pairs: scipy says which of its methods it takes
        return float(wilcoxon(means).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values in the order given; NaN (a test that was impossible) stays NaN and counts for nothing."""
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, float)
    known = np.isfinite(values)
    adjusted = np.full(len(values), math.nan)
    if known.any():
        adjusted[known] = multipletests(values[known], method="holm")[1]
    return [float(value) for value in adjusted]


def p_text(p: float) -> str:
    """A p value for a table: "<0.001", three decimals, or "-"."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _finite(values: ArrayLike) -> Floats:
    found = np.asarray(values, float)
    return found[np.isfinite(found)]


@dataclass(frozen=True)
class Odds:
    """An effect in a logistic regression: odds ratio for one unit of the predictor, 95 % interval, two-sided p."""

    ratio: float
    low: float
    high: float
    p: float


def logistic(outcome: ArrayLike, predictors: Mapping[str, ArrayLike], groups: Iterable[Any]) -> dict[str, Odds] | None:
    """Logistic regression by statsmodels, errors robust to observations of one group hanging together.

    None where it has no finite solution or says nothing: one outcome only, a predictor that is constant or separates the
    outcomes perfectly, fewer than 10 of the rarer outcome, or fewer than 5 groups.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError

    y = np.asarray(outcome, float)
    columns = np.stack([np.asarray(values, float) for values in predictors.values()], 1)
    names = np.asarray([str(group) for group in groups])
    kept = np.isfinite(y) & np.isfinite(columns).all(1)
    y, columns, names = y[kept], columns[kept], names[kept]
    if len(y) == 0 or min(y.sum(), len(y) - y.sum()) < 10 or len(set(names)) < 5 or np.any(np.ptp(columns, 0) == 0):
        return None
    codes = np.unique(names, return_inverse=True)[1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = sm.Logit(y, sm.add_constant(columns)).fit(disp=0, cov_type="cluster", cov_kwds={"groups": codes})
    except (PerfectSeparationError, np.linalg.LinAlgError):
        return None
    # With perfect separation the likelihood climbs for ever: fitted odds of e^15 are no finding.
    if not fit.mle_retvals["converged"] or np.abs(fit.predict() - y).max() < 1e-4 or np.abs(fit.params).max() > 50:
        return None
    ends = np.exp(fit.conf_int())
    return {
        name: Odds(float(np.exp(fit.params[k])), float(ends[k][0]), float(ends[k][1]), float(fit.pvalues[k]))
        for k, name in enumerate(predictors, 1)
    }
