"""Mask methods taken apart: which heat, how it is refined, how it becomes a decision, how it is snapped to the picture.

Every method of `mask_methods` is one of these combinations, under its own name (`CORE`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .. import masks
from ..defaults import DEFAULT_TAU
from ..errors import DetailMissing
from ..maps.heatmaps import HeatMaps
from ..masks.figure_ground import walked
from ..types import Size

Heat = Literal["sum", "late"]
Decision = Literal["threshold", "otsu", "compete", "figure"]
Snap = Literal["none", "guided", "grabcut"]
TAUS = (0.2, 0.3, 0.4, 0.5, 0.6)
CUT_TAUS = (0.3, 0.4, 0.5)  # GrabCut moves every edge anyway and costs most of the time


@dataclass(frozen=True)
class Combination:
    """One way from a word's attention to its mask.

    Attributes:
        heat: "sum" is Eq. 6; "late" weights step j by j squared.
        walks: steps along self-attention.
        decision: "threshold" (Eq. 7), "otsu", "compete" (the hottest word wins, from tau on), or "figure" (figure and ground
            told apart by the picture's colours, see `masks.best`; it brings its own level and snapping).
        snap: what moves the edge to the picture's.
    """

    heat: Heat
    walks: int
    decision: Decision
    snap: Snap = "none"

    @property
    def name(self) -> str:
        """For tables: "late + walk + compete + grabcut"."""
        walk = ("", "walk", "2 walks")[self.walks]
        return " + ".join(part for part in (self.heat, walk, self.decision, self.snap) if part and part != "none")

    @property
    def taus(self) -> tuple[float | None, ...]:
        """The levels to try; None where the decision finds its own."""
        if self.decision in ("otsu", "figure"):
            return (None,)
        return CUT_TAUS if self.snap == "grabcut" else TAUS


CORE: dict[Combination, str] = {
    Combination("sum", 0, "threshold"): "threshold",
    Combination("sum", 0, "otsu"): "otsu",
    Combination("sum", 0, "compete"): "compete",
    Combination("late", 1, "compete"): "walk",
    Combination("sum", 0, "compete", "guided"): "guided",
    Combination("sum", 0, "compete", "grabcut"): "grabcut",
    Combination("late", 1, "figure"): "best",
}
"""The core's methods as combinations."""


def combinations() -> list[Combination]:
    """All that are compared: the core's first, then every other combination of the parts."""
    heats: tuple[Heat, ...] = ("sum", "late")
    decisions: tuple[Decision, ...] = ("threshold", "otsu", "compete")
    snaps: tuple[Snap, ...] = ("none", "guided", "grabcut")
    found = list(CORE)
    found += [
        Combination(heat, walks, decision, snap)
        for heat in heats
        for walks in (0, 1)
        for decision in decisions
        for snap in snaps
    ]
    found += [Combination(heat, 2, "compete") for heat in heats]
    found += [Combination(heat, walks, "figure") for heat in heats for walks in (0, 1)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Workbench:
    """What all combinations of one word share, computed once.

    Attributes:
        maps: the recording; its picture and its self-attention are used.
        names: the word, then those it competes with.
        size: (height, width) of the masks.
    """

    maps: HeatMaps
    names: Sequence[str]
    size: Size

    @classmethod
    def of(cls, maps: HeatMaps, word: str, size: Size) -> Workbench:
        """Raises WordNotFound."""
        return cls(maps, [word, *maps.prompt.rivals(word)], size)

    def native(self, heat: Heat, walks: int) -> Tensor:
        """float32 `[words, h, w]` at the recorded grid, or at the self-attention's after a walk."""
        maps = self.maps if heat == "sum" else dataclasses.replace(self.maps, sums=self.maps.time_weighted)
        found = maps.heat_maps(self.names)
        if not walks:
            return found
        if not self.maps.self_attention:
            raise DetailMissing("Self-attention was not recorded.")
        (_, attention), *_ = self.maps.self_attention.items()
        for _ in range(walks):
            found = walked(found, attention)
        return found

    def mask(self, how: Combination, tau: float | None) -> Tensor:
        """bool `[H, W]` of the first word.

        Raises:
            DetailMissing: the recording has no picture or no self-attention.
        """
        level = DEFAULT_TAU if tau is None else tau
        native = self.native(how.heat, how.walks)
        if how.decision == "figure":
            return masks.best(native, 0, picture=self.maps.picture, size=self.size)
        # Eq. 6 upscales every resolution on its own; walked or late heat has one grid.
        plain = how.heat == "sum" and not how.walks
        heat = self.maps.heat_maps(self.names, self.size) if plain else masks.resized(native, self.size)
        if how.snap == "none":
            return _decide(heat, how.decision, level)
        picture = self.maps.picture
        if picture is None:
            raise DetailMissing("The recording has no picture to snap to.")
        if how.snap == "guided":
            return _decide(masks.snap_guided(masks.minmax(heat), picture), how.decision, level)
        return masks.snap_grabcut(heat[:1], picture, where=_decide(heat, how.decision, level)[None])[0]


def _decide(heat: Tensor, decision: Decision, tau: float) -> Tensor:
    match decision:
        case "threshold":
            return masks.threshold(heat[0], tau)
        case "otsu":
            return masks.otsu(heat[0])
        case _:
            return masks.compete(heat, tau)[0]
