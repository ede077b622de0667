"""How often the sampler ran upon its own output within one execution of a node.

Nodes that sample regions by turns, or enlarge a picture bit by bit, run the sampler many times for one picture. The latent that
comes out is that of the last run, and so are the maps: whoever reads them has to know. Runs that have nothing to do with
each other (a grid of seeds, a batch that a node takes apart) are told from these by what they begin with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from comfy_execution.utils import get_executing_context
from torch import Tensor

_MOST_RUNS = 16
"""Earlier runs of one node that are compared with: of regions by turns, those of one step."""
_MOST_VALUES = 4096
_MOST_PICTURES = 8
"""So many of a batch are compared one by one with those of a batch of another size."""
_GRID = 8
_SHARE = 0.02
"""Of the values that are compared, how many must be another run's: of half-precision latents a thousandth is by chance."""
_ALIKE, _CHANGED_ALIKE = 0.5, 0.8
"""How alike, at least, a run's output and what another begins with are; and, at one size, the ways in which both differ from
what that run was given (two pictures of one film are alike, too)."""


@dataclass(frozen=True)
class _Latent:
    """What is remembered of a latent: float32, on the CPU.

    Attributes:
        values: some, evenly spread, `[at most _MOST_VALUES]`.
        places: means over the parts of each picture, `[images x channels, _GRID x _GRID]`; None of what has no places.
        pictures: the first of a batch, each by itself.
    """

    shape: tuple[int, ...]
    values: Tensor
    places: Tensor | None
    pictures: tuple[_Latent, ...] = ()

    @classmethod
    def of(cls, batch: Tensor) -> _Latent:
        alone = tuple(cls._of(picture[None]) for picture in batch[:_MOST_PICTURES])
        return replace(cls._of(batch), pictures=alone)

    @classmethod
    def _of(cls, latent: Tensor) -> _Latent:
        flat, places = latent.detach().reshape(-1), None
        picked = torch.linspace(0, len(flat) - 1, min(len(flat), _MOST_VALUES), dtype=torch.float64).long()
        if latent.dim() > 3:
            pictures = latent.detach().float().reshape(*latent.shape[:2], -1, *latent.shape[-2:]).mean(2)
            places = F.adaptive_avg_pool2d(pictures, _GRID).flatten(0, 1).flatten(1).cpu()
        return cls(tuple(latent.shape), flat[picked.to(flat.device)].float().cpu(), places)

    @property
    def is_empty(self) -> bool:
        return bool((self.values == self.values[0]).all())


@dataclass(frozen=True)
class _Run:
    number: int
    begun: _Latent
    made: _Latent
    before: frozenset[int]
    """Numbers of the runs whose output went into this one."""


class NodeRuns:
    """Remembers a little of each run of the sampler in the node that is executed; the next node's begin anew."""

    def __init__(self) -> None:
        self._node: Any = None
        self._runs: list[_Run] = []
        self._count = 0

    def add(self, begun: Tensor, made: Tensor) -> int:
        """How many runs made a picture, this one included.

        Args:
            begun: the latent that the sampler was given, without its noise, `[images, c, …]`.
            made: what it gave out.
        """
        node = get_executing_context()
        if node is None:  # a script: nobody says where a node begins and ends
            return 1
        if node is not self._node:
            self._node, self._runs, self._count = node, [], 0
        given, out = _Latent.of(begun), _Latent.of(made)
        sources = [] if given.is_empty else [run for run in self._runs if _goes_into(run, given)]
        before = frozenset[int]().union(*({run.number} | run.before for run in sources))
        self._count += 1
        self._runs = [*self._runs, _Run(self._count, given, out, before)][-_MOST_RUNS:]
        return 1 + len(before)


def _goes_into(run: _Run, given: _Latent) -> bool:
    """Whether another run begins with what a run made, or with pictures of it (one of a batch, or a batch of the same one)."""
    begun, made = run.begun, run.made
    if made.shape[0] == given.shape[0]:
        return _becomes(begun, made, given)
    pairs = list(zip(begun.pictures, made.pictures, strict=False))
    return any(_becomes(before, after, picture) for before, after in pairs for picture in given.pictures)


def _becomes(begun: _Latent, made: _Latent, given: _Latent) -> bool:
    """Whether `given` is what was made of `begun`: some of its very values, or all of them enlarged or changed a little."""
    if begun.shape == made.shape == given.shape:
        own = (given.values == made.values) & (made.values != begun.values)
        if float(own.double().mean()) > _SHARE:
            return True
    if begun.places is None or made.places is None or given.places is None:
        return False
    if not begun.places.shape == made.places.shape == given.places.shape:
        return False
    alike = _alike(given.places, made.places)
    if made.shape != given.shape:
        return alike > max(_ALIKE, _alike(given.places, begun.places))
    return alike > _ALIKE and _alike(given.places - begun.places, made.places - begun.places) > _CHANGED_ALIKE


def _alike(one: Tensor, other: Tensor) -> float:
    """The correlation of two `[rows, places]` over the places, of all rows together; 0 where one is even."""
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    size = float(one.norm() * other.norm())
    return float((one * other).sum()) / size if size > 0 else 0.0


NODE_RUNS = NodeRuns()
"""Of all Records: regions are often sampled with models of their own."""
