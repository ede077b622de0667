"""Small attention layers of one shape, gathered and worked off together.

One by one they would cost a small model more time than its own work: most of it is the start of kernels, not their run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import TEMPORARY_BYTES

PROBED_LAYERS = 4
"""Layers worked off at once before layers are gathered, to see that the model leaves its queries as they are."""

IN_PLACE = "the model changed its queries or keys in place after they were made"


@dataclass
class Pool:
    """Queries and keys of layers of one shape: side by side they are one layer of more heads.

    Attributes:
        cost: bytes of temporaries that one layer takes.
        work_off: takes q `[batch, n, layers * heads * d]`, k `[batch, keys, layers * heads * d]`, number of layers.
    """

    cost: int
    work_off: Callable[[Tensor, Tensor, int], None]
    _q: list[Tensor] = field(default_factory=list)
    _k: list[Tensor] = field(default_factory=list)
    _versions: int = 0

    @property
    def worth_it(self) -> bool:
        """Whether two layers fit into the budget."""
        return 2 * self.cost <= TEMPORARY_BYTES

    def add(self, q: Tensor, k: Tensor) -> None:
        """Let a layer wait; the pool is emptied when it is full."""
        if (len(self._q) + 1) * self.cost > TEMPORARY_BYTES:
            self.empty()
        self._q.append(q)
        self._k.append(k)
        self._versions += _version(q) + _version(k)

    def empty(self) -> None:
        """Work off what waits.

        Raises:
            RuntimeError: the model wrote into a query or key after it was made.
        """
        q, k, versions = self._q, self._k, self._versions
        if not q:
            return
        self._q, self._k, self._versions = [], [], 0
        if sum(_version(a) + _version(b) for a, b in zip(q, k, strict=True)) != versions:
            raise RuntimeError(IN_PLACE)
        self.work_off(torch.cat(q, -1), torch.cat(k, -1), len(q))


@dataclass
class Probe:
    """Whether layers may wait: not where the model was seen to write into its queries.

    In inference mode tensors do not say when they are written to: there the first queries are copied, and the copies
    are compared when the run is over.
    """

    _seen: int = 0
    _last: tuple[Tensor, int] | None = None
    _in_place: bool = False
    _copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def allows(self, q: Tensor) -> bool:
        """Look at the queries of one more layer; the first few are only looked at."""
        if self._in_place:
            return False
        if self._seen > PROBED_LAYERS:
            return True
        if self._last is not None:
            self._in_place |= _version(self._last[0]) != self._last[1]
        self._seen += 1
        self._last = (q, _version(q)) if self._seen <= PROBED_LAYERS else None
        if q.is_inference() and self._last is not None:
            self._copies.append((q, q.clone()))
        return False

    def close(self) -> None:
        """Compare what was copied, and let go of it.

        Raises:
            RuntimeError: the model wrote into its queries.
        """
        copies, self._copies, self._last = self._copies, [], None
        if not all(torch.allclose(q, copy, rtol=0, atol=0, equal_nan=True) for q, copy in copies):
            raise RuntimeError(IN_PLACE)


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version
