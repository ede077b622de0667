"""The one way from what is known of a word to its mask: heat, propagation, decision, edge; and the named methods on it.

`MASK_METHODS` are points of this pipeline, and the study of combinations enumerates the others (`MaskMethod` each):

1. *Heat.* "sum" is Eq. 6; "late" weights step j by j squared.
2. *Propagation* along the model's own self-attention, or where that was not recorded along the affinity of its outputs, if it
   says something of this picture (`propagate`).
3. *Rivals.* Of the words that might compete for a place only those that stand for another object do (`rivals`).
4. *Decision.* Eq. 7, Otsu's level, the hottest word, or figure and ground told apart by the picture (`figure_ground`).
5. *Edge.* What moves the mask's outline to the picture's: nothing, the guided filter, GrabCut.

A mask that contradicts its own map is not given: the next simpler method makes it, and the result says which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attention.upsample import bicubic
from ..defaults import DEFAULT_TAU
from ..errors import BadArgument, DetailMissing, quoted
from ..types import Size
from .figure_ground import figure_mask
from .grabcut import snap_grabcut
from .guided_filter import snap_guided
from .propagate import propagated
from .resize import resized
from .rivals import rivals, threshold_less_rivals
from .threshold import compete, otsu, stretched, threshold
from .validate import checked_share

Heat = Literal["sum", "late"]
Decision = Literal["threshold", "otsu", "compete", "figure"]
Edge = Literal["none", "guided", "grabcut"]


@dataclass(frozen=True)
class MaskInputs:
    """What is known of a word and the words it may have to share the picture with; the word itself is first.

    Attributes:
        levels: float32 `[words, h, w]` for each recorded resolution, Eq. 6 before upscaling.
        time_weighted: float32 `[words, h, w]` at native size, step j weighted by j squared: late steps place an object better.
        self_attention: grid (h, w) and float32 `[n, n]` (query, key), where recorded; else what stands for it, see
            `propagate.affinity_attention`.
        picture: uint8 `[H, W, 3]`, where known.
        size: (height, width) of the mask.
    """

    levels: Sequence[Tensor]
    time_weighted: Tensor
    self_attention: tuple[Size, Tensor] | None
    picture: NDArray[np.uint8] | None
    size: Size

    @cached_property
    def maps(self) -> Tensor:
        """float32 `[words, H, W]`, Eq. 6 at the size of the mask; upscaled only for the methods that look at it."""
        return bicubic(self.levels, self.size)

    def native(self, heat: Heat) -> Tensor:
        """float32 `[words, h, w]` at the finest recorded grid."""
        grid = (int(self.time_weighted.shape[-2]), int(self.time_weighted.shape[-1]))
        return self.time_weighted if heat == "late" else bicubic(self.levels, grid)


@dataclass(frozen=True)
class MaskMethod:
    """A point of the pipeline.

    Attributes:
        heat: "sum" is Eq. 6; "late" weights step j by j squared.
        walks: steps along self-attention.
        decision: "threshold" (Eq. 7), "otsu", "compete" (Eq. 7 less the places where a rival is hotter;
            of walked heat from the share tau of its range on), or "figure" (figure and
            ground told apart by the picture's colours, see `masks.best`; it brings its own level and edge).
        edge: what moves the edge to the picture's.
    """

    heat: Heat = "sum"
    walks: int = 0
    decision: Decision = "threshold"
    edge: Edge = "none"

    @property
    def name(self) -> str:
        """For tables: "late + walk + compete + grabcut"."""
        walk = "" if not self.walks else "walk" if self.walks == 1 else f"{self.walks} walks"
        return " + ".join(part for part in (self.heat, walk, self.decision, self.edge) if part and part != "none")

    def simpler(self) -> Iterator[MaskMethod]:
        """What is tried when this method's mask contradicts its map, down to Eq. 7."""
        if self.walks:
            yield dataclasses.replace(self, walks=0)
        if self != EQUATION_7:
            yield EQUATION_7

    def believed(self, mask: Tensor, heat: Tensor) -> bool:
        """Whether a mask, bool `[H, W]`, that this method made is given, by its word's own map `[H, W]`; Eq. 7 always is.

        Competition may leave a word nothing, for that is what it asks. Figure and ground are to find the word's object.
        """
        return self == EQUATION_7 or not (contradicts(mask, heat) or (self.decision == "figure" and misses(mask, heat)))

    def apply(self, inputs: MaskInputs, tau: float = DEFAULT_TAU) -> Tensor | None:
        """The mask of the first word by this method and no other: bool `[H, W]`.

        None where self-attention was to be used and says nothing of this picture.

        Raises:
            DetailMissing: the method needs the picture or self-attention, and the recording has none.
        """
        if self.edge != "none" and inputs.picture is None:
            raise DetailMissing("This method snaps to the picture, and the recording has none: give `image=`.")
        maps = self._propagated(inputs)
        if maps is None:
            return None
        if self.decision == "figure":
            # Along self-attention heat runs to objects of the same colour: who competes is told by heat before it walks.
            own = inputs.native(self.heat)
            words = [0, *rivals(own, 0)]
            return figure_mask(maps[words], own[words], inputs.picture, inputs.size, cut=self.edge == "grabcut")
        chosen = maps[[0, *rivals(maps, 0)]]
        heat = resized(chosen, inputs.size)
        if inputs.picture is None or self.edge == "none":
            return self.decided(heat, tau)
        if self.edge == "guided":
            # Linear in the map: a word without rivals keeps its own scale for Eq. 7, several need a common one.
            return self.decided(snap_guided(heat if len(heat) == 1 else stretched(heat), inputs.picture), tau)
        return snap_grabcut(heat[:1], inputs.picture, where=self.decided(heat, tau)[None])[0]

    @property
    def is_equation_6(self) -> bool:
        """Whether its heat is the sum of all steps as it is."""
        return self.heat == "sum" and not self.walks

    def _propagated(self, inputs: MaskInputs) -> Tensor | None:
        # Eq. 6 upscales every resolution on its own; walked or late heat has one grid.
        native = inputs.maps if self.is_equation_6 and self.decision != "figure" else inputs.native(self.heat)
        if not self.walks:
            return native
        if inputs.self_attention is None:
            raise DetailMissing(
                "Self-attention was not recorded. Record with `trace(pipe, self_attention=True)`; where the model has no "
                "grid of at most 24 x 24 positions (large pictures) there is none to record: record with "
                "`output_space=True`, whose affinity takes its place, or take the method 'late'."
            )
        grid, attention = inputs.self_attention
        return propagated(native, attention, grid, self.walks)

    def decided(self, heat: Tensor, tau: float) -> Tensor:
        """The decision by heat `[words, H, W]`, the word first: bool `[H, W]`."""
        match self.decision:
            case "threshold":
                return threshold(heat[0], tau)
            case "otsu":
                return otsu(heat[0])
            case _ if not self.walks:
                return threshold_less_rivals(heat, tau)
            case _:
                return compete(heat, tau)[0]  # walked heat lies on a base: a share of its range


EQUATION_7 = MaskMethod()

MASK_METHODS: dict[str, MaskMethod] = {
    "best": MaskMethod("late", 1, "figure", "grabcut"),
    "threshold": EQUATION_7,
    "late": MaskMethod("late"),
    "otsu": MaskMethod("sum", 0, "otsu"),
    "compete": MaskMethod("sum", 0, "compete"),
    "walk": MaskMethod("late", 1, "compete"),
    "guided": MaskMethod("sum", 0, "compete", "guided"),
    "grabcut": MaskMethod("sum", 0, "compete", "grabcut"),
}
"""best: the product's default (`masks.best`); threshold: Eq. 7; late: Eq. 7 of late steps, as cheap and mostly better; otsu:
Otsu's level; compete: the hottest of the competing words, from tau on; walk: compete after one step along self-attention;
guided, grabcut: compete, snapped to the picture's edges."""


@dataclass(frozen=True)
class MaskResult:
    """A mask and what made it.

    Attributes:
        mask: bool `[H, W]`, of a video `[frames, H, W]`.
        method: what made it: the method that was asked for, or a simpler one (a name of `MASK_METHODS`, or of its parts).
        note: one sentence that says why it is a simpler one; empty where it is not.
    """

    mask: Tensor
    method: str
    note: str = ""


def make_mask(inputs: MaskInputs, method: str = "best", tau: float = DEFAULT_TAU) -> MaskResult:
    """The mask of the first word by a named method, or by a simpler one where that contradicts the word's own map.

    Raises:
        BadArgument: an unknown method (the text lists those that are), or tau outside 0..1.
        DetailMissing: the method needs the picture or self-attention, and the recording has none.
    """
    asked = asked_method(method, tau, inputs.self_attention is not None, inputs.picture is not None)
    return first_believed(
        asked, method, lambda one: one.apply(inputs, tau), lambda one, mask: one.believed(mask, inputs.maps[0])
    )


def first_believed(
    asked: MaskMethod,
    name: str,
    make: Callable[[MaskMethod], Tensor | None],
    believed: Callable[[MaskMethod, Tensor], bool],
) -> MaskResult:
    """The mask of the method `asked` for by its `name`, or of the first simpler one whose mask does not contradict its map.

    Args:
        make: a method's mask; None where self-attention was to be used and says nothing.
        believed: whether a method's mask is given, see `MaskMethod.believed`.
    """
    mask = make(asked)
    if mask is not None and believed(asked, mask):
        return MaskResult(mask, name)
    silent = mask is None
    for other in asked.simpler():
        mask = make(other)
        if mask is not None and believed(other, mask):
            break
    assert mask is not None  # Eq. 7 needs nothing that could be missing
    return _gave_way(mask, name, other, silent)


def asked_method(method: str, tau: float, self_attention: bool, picture: bool) -> MaskMethod:
    """The method of a name; the default does without what there is not.

    Raises:
        BadArgument: an unknown method (the text lists those that are), or tau outside 0..1.
    """
    if not isinstance(method, str) or method not in MASK_METHODS:
        raise BadArgument(f"There is no mask method {quoted(method)}; there are {', '.join(MASK_METHODS)}.")
    checked_share(tau, "tau")
    asked = MASK_METHODS[method]
    if asked.decision == "figure":
        return dataclasses.replace(asked, walks=asked.walks * self_attention, edge=asked.edge if picture else "none")
    return asked


def _gave_way(mask: Tensor, method: str, other: MaskMethod, silent: bool) -> MaskResult:
    """A mask by another method than was asked for, and why: self-attention was silent, or the mask contradicted its map."""
    reason = "the recorded self-attention says nothing of this picture" if silent else "its mask contradicted the map"
    name = method_name(other)
    return MaskResult(mask, name, f"The method {method!r} gave way to {name!r}: {reason}.")


def method_name(method: MaskMethod) -> str:
    """Its name in `MASK_METHODS`, else that of its parts."""
    return next((name for name, known in MASK_METHODS.items() if known == method), method.name)


def contradicts(mask: Tensor, heat: Tensor) -> bool:
    """Whether a mask, bool `[H, W]`, contradicts its word's own map `[H, W]`: most of its area lies outside the upper half.

    The upper half of a map is what is at least as hot as its mean, or as the middle of its range where that is lower (a word
    of most of the picture). Of true masks 0.68 and more of the area lies there, of masks made from a map that had lost its
    contrast at most 0.52. An empty mask contradicts nothing.
    """
    level = torch.minimum(heat.mean(), (heat.amin() + heat.amax()) / 2)
    return 2 * int((mask & (heat >= level)).sum()) < int(mask.sum())


def misses(mask: Tensor, heat: Tensor) -> bool:
    """Whether a mask, bool `[H, W]`, is but crumbs: smaller than a tenth of the hottest places of its word's own map `[H, W]`.

    These are the places above the middle of its range. Where objects of one colour touch, or a map comes from a size that the
    model does not know, a word may lose its place to a rival but for crumbs, or altogether. On the model inside from 64 to 512
    pixels, objects that were found had 0.25 of their area and more; crumbs had at most 0.08. A map without contrast has none.
    """
    hot = heat > (heat.amin() + heat.amax()) / 2
    return 10 * int(mask.sum()) < int(hot.sum())
