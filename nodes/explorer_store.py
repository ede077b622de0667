"""The pictures that explorers show: what a page may ask this process for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..daam_core.errors import NothingRecorded
from ..daam_core.explorer.page_data import PageData, page_data
from ..daam_core.lru_cache import LRUCache
from ..daam_core.maps.heatmaps import HeatMaps
from .capture.recording_store import MOST_BYTES
from .convert import MapsHandle

MOST_RUNS = 64
MOST_PAGES = 256
MOST_PAGE_BYTES = 64 * 2**20
"""Of pages that were made; one is some 200 kB, and made anew in a fraction of a second."""


@dataclass(frozen=True)
class _Run:
    handle: MapsHandle

    @property
    def nbytes(self) -> int:
        return sum(maps.nbytes for maps in self.handle)


class ExplorerStore:
    """A bounded memory of recordings (see `LRUCache`)."""

    def __init__(self, runs: int = MOST_RUNS, most_bytes: int = MOST_BYTES) -> None:
        self._runs: LRUCache[_Run] = LRUCache(runs, most_bytes, lambda run: run.nbytes)
        self._pages: LRUCache[PageData] = LRUCache(MOST_PAGES, MOST_PAGE_BYTES, lambda page: len(page.atlas))

    def keep(self, handle: MapsHandle) -> str:
        """The name under which a page finds these maps; the same maps and pictures keep their name."""
        return self._runs.named(lambda run: _same(run.handle, handle)) or self._runs.keep(_Run(handle))

    def maps(self, name: str, picture: int) -> HeatMaps:
        """One picture's maps. Raises NothingRecorded."""
        return self._run(name, picture).handle[picture]

    def page(self, name: str, picture: int) -> PageData:
        """What the page shows of one picture, made once while there is room. Raises NothingRecorded."""
        run, own = self._run(name, picture), f"{name}/{picture}"
        page = self._pages.find(own)
        if page is None:
            self._pages.keep(page := page_data(run.handle[picture]), own)
        return page

    def _run(self, name: str, picture: int) -> _Run:
        run = self._runs.find(name)
        if run is None or not 0 <= picture < len(run.handle):
            raise NothingRecorded(
                "There are no heat maps for this picture any more: ComfyUI was started again, or many others came after "
                "it. Queue the graph again, if need be with another seed."
            )
        return run


EXPLORED = ExplorerStore()
"""Nodes have no state of their own; a page asks long after the node has run."""


def _same(a: MapsHandle, b: MapsHandle) -> bool:
    return len(a) == len(b) and all(map(_same_picture, a, b))


def _same_picture(a: HeatMaps, b: HeatMaps) -> bool:
    # A cached recording holds the very same sides, in a new `HeatMaps` where a node gave it a picture.
    if a.size != b.size or a.sides.keys() != b.sides.keys() or any(a.sides[name] is not b.sides[name] for name in a.sides):
        return False
    return a.picture is b.picture or (a.picture is not None and b.picture is not None and np.array_equal(a.picture, b.picture))
