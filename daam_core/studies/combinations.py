"""Mask methods taken apart: every point of the pipeline of `masks.methods` that is compared, the named ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..defaults import DEFAULT_TAU
from ..maps.heatmaps import HeatMaps
from ..masks.methods import MASK_METHODS, Decision, Edge, Heat, MaskInputs, MaskMethod
from ..types import Size

TAUS = (0.2, 0.3, 0.4, 0.5, 0.6)
CUT_TAUS = (0.3, 0.4, 0.5)  # GrabCut moves every edge anyway and costs most of the time

CORE: dict[MaskMethod, str] = {method: name for name, method in MASK_METHODS.items()}
"""The core's methods, by what they are made of."""


def levels_of(method: MaskMethod) -> tuple[float | None, ...]:
    """The levels to try; None where the decision finds its own."""
    if method.decision in ("otsu", "figure"):
        return (None,)
    return CUT_TAUS if method.edge == "grabcut" else TAUS


def combinations() -> list[MaskMethod]:
    """All that are compared: the core's first, then every other combination of the parts."""
    heats: tuple[Heat, ...] = ("sum", "late")
    decisions: tuple[Decision, ...] = ("threshold", "otsu", "compete")
    edges: tuple[Edge, ...] = ("none", "guided", "grabcut")
    found = list(CORE)
    found += [
        MaskMethod(heat, walks, decision, edge)
        for heat in heats
        for walks in (0, 1)
        for decision in decisions
        for edge in edges
    ]
    found += [MaskMethod(heat, 2, "compete") for heat in heats]
    cuts: tuple[Edge, ...] = ("none", "grabcut")
    found += [MaskMethod(heat, walks, "figure", edge) for heat in heats for walks in (0, 1) for edge in cuts]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Workbench:
    """What all combinations of one word share, computed once.

    Attributes:
        maps: the recording; its picture and its self-attention are used.
        names: the word, then those it may have to compete with.
        size: (height, width) of the masks.
    """

    maps: HeatMaps
    names: Sequence[str]
    size: Size

    @classmethod
    def of(cls, maps: HeatMaps, word: str, size: Size) -> Workbench:
        """Raises WordNotFound."""
        return cls(maps, [word, *maps.prompt.rivals(word)], size)

    @cached_property
    def inputs(self) -> MaskInputs:
        """What the pipeline is given."""
        return self.maps.mask_inputs(self.names, self.maps.picture, self.size)

    def mask(self, how: MaskMethod, tau: float | None) -> Tensor | None:
        """bool `[H, W]` of the first word; None where self-attention says nothing of the picture.

        Raises:
            DetailMissing: the recording has no picture or no self-attention.
        """
        return how.apply(self.inputs, DEFAULT_TAU if tau is None else tau)
