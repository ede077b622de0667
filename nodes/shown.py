"""The pictures that explorers show: what a page may ask this process for, by a name that nobody can guess."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from ..daam_core.errors import NothingRecorded
from ..daam_core.heatmaps import HeatMaps
from ..daam_core.page import PageData, page_data
from .handles import Handle
from .runs import MOST_BYTES, tensor_bytes

MOST_RUNS = 64


@dataclass(frozen=True)
class _Run:
    handle: Handle
    bytes: int
    pages: dict[int, PageData] = field(default_factory=dict)


class Shown:
    """A bounded memory of recordings, the one that was not asked for the longest goes first."""

    def __init__(self, runs: int = MOST_RUNS, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = runs, most_bytes
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._lock = Lock()

    def keep(self, handle: Handle) -> str:
        """The name under which a page finds these maps; the same maps and pictures keep their name."""
        with self._lock:
            for name, run in self._runs.items():
                if _same(run.handle, handle):
                    self._runs.move_to_end(name)
                    return name
            name = secrets.token_urlsafe(12)
            self._runs[name] = _Run(handle, sum(map(_bytes, handle)))
            while len(self._runs) > 1 and (len(self._runs) > self._most or self._bytes() > self._most_bytes):
                self._runs.popitem(last=False)
            return name

    def maps(self, name: str, picture: int) -> HeatMaps:
        """One picture's maps. Raises NothingRecorded."""
        return self._run(name, picture).handle[picture]

    def page(self, name: str, picture: int) -> PageData:
        """What the page shows of one picture, made once. Raises NothingRecorded."""
        run = self._run(name, picture)
        if picture not in run.pages:
            run.pages[picture] = page_data(run.handle[picture])
        return run.pages[picture]

    def _run(self, name: str, picture: int) -> _Run:
        with self._lock:
            run = self._runs.get(name)
            if run is None or not 0 <= picture < len(run.handle):
                raise NothingRecorded(
                    "There are no heat maps for this picture any more: ComfyUI was started again, or many others came after "
                    "it. Queue the graph again, if need be with another seed."
                )
            self._runs.move_to_end(name)
            return run

    def _bytes(self) -> int:
        return sum(run.bytes for run in self._runs.values())


SHOWN = Shown()
"""Nodes have no state of their own; a page asks long after the node has run."""


def _same(a: Handle, b: Handle) -> bool:
    return len(a) == len(b) and all(map(_same_picture, a, b))


def _same_picture(a: HeatMaps, b: HeatMaps) -> bool:
    # A cached recording comes as the very same tensors, in a new frame where a picture was laid under it.
    if a.sums is not b.sums or a.size != b.size or a.rule != b.rule or a.prompt != b.prompt or a.negative is not b.negative:
        return False
    return a.picture is b.picture or (a.picture is not None and b.picture is not None and np.array_equal(a.picture, b.picture))


def _bytes(maps: HeatMaps) -> int:
    return tensor_bytes(maps) + (0 if maps.picture is None else maps.picture.nbytes)
