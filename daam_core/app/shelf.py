"""The pictures of this run of the app."""

from __future__ import annotations

from ..errors import NothingRecorded
from ..lru_cache import LRUCache
from ..maps.heatmaps import HeatMaps

MOST = 16
MOST_BYTES = 256 * 2**20


class Shelf:
    """A bounded memory of heat maps (see `LRUCache`)."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._maps: LRUCache[HeatMaps] = LRUCache(most, most_bytes, lambda maps: maps.nbytes)

    def keep(self, maps: HeatMaps) -> str:
        """Its name."""
        return self._maps.keep(maps)

    def find(self, name: str) -> HeatMaps:
        """Raises NothingRecorded."""
        maps = self._maps.find(name)
        if maps is None:
            raise NothingRecorded("This picture is not here any more; make it again with the same seed.")
        return maps
