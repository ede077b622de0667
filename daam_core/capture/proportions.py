"""Latents that become others in the middle of a run: larger ones are the same picture, those of another shape a part of it."""

from __future__ import annotations

from ..errors import UnsupportedModel
from ..types import Grid


def require_proportions(first: Grid, now: Grid) -> None:
    """A later step's grid can be the first one's picture at another size, each side to the nearest position.

    Args:
        first, now: (h, w).

    Raises:
        UnsupportedModel: it cannot: what one place shows, another place showed before.
    """
    least, most = ((now[0] + by) / first[0] * first[1] for by in (-1, 1))
    if not (least < now[1] + 1 and now[1] - 1 < most):
        raise UnsupportedModel(
            f"The latents went from {first[1]} x {first[0]} to {now[1]} x {now[0]} in the middle of the run, which are other "
            "proportions, so nobody can say which place of the one is which of the other. Keep the proportions, or paint in "
            "two calls of the pipeline"
        )
