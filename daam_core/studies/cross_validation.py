"""Choices are made on one half of the prompts and reported on the other."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

CHOOSING, REPORTING = "choosing", "reporting"


def half_of(number: int) -> str:
    """The half of a prompt by its number within its kind: even ones are chosen on, odd ones reported."""
    return CHOOSING if number % 2 == 0 else REPORTING


@dataclass(frozen=True)
class Chosen:
    """A mask and the threshold that served it best on the choosing half (None where it has none), with the mean there."""

    mask: str
    tau: float | None
    mean: float

    def rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of `rows` that are this mask at this threshold."""
        of_mask = rows[rows["mask"] == self.mask]
        return of_mask[of_mask["tau"].isna()] if self.tau is None else of_mask[of_mask["tau"] == self.tau]


def chosen(scored: pd.DataFrame, by: str = "mask") -> list[Chosen]:
    """The best threshold of each mask: by the mean over kinds of prompt of the mean IoU on the choosing half.

    Kinds count equally, whatever their number of masks. Of equal thresholds the lower one is taken.
    """
    half = scored[scored["half"] == CHOOSING]
    by_split = half.groupby([by, "tau", "split"], dropna=False, sort=True)["iou"].mean()
    means = by_split.groupby(level=[by, "tau"], dropna=False, sort=True).mean()
    found: dict[str, Chosen] = {}
    for (mask, tau), mean in means.items():
        if mask not in found or mean > found[mask].mean:
            found[mask] = Chosen(str(mask), None if pd.isna(tau) else float(tau), float(mean))
    return list(found.values())
