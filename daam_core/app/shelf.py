"""The pictures of this run of the app, under names that nobody can guess."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from threading import Lock

from ..errors import NothingRecorded
from ..heatmaps import HeatMaps

MOST = 16


class Shelf:
    """A bounded memory; the picture that was not asked for the longest goes first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._maps: OrderedDict[str, HeatMaps] = OrderedDict()
        self._lock = Lock()

    def keep(self, maps: HeatMaps) -> str:
        """Its name."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._maps[name] = maps
            while len(self._maps) > self._most:
                self._maps.popitem(last=False)
        return name

    def find(self, name: str) -> HeatMaps:
        """Raises NothingRecorded."""
        with self._lock:
            if name not in self._maps:
                raise NothingRecorded("This picture is not here any more; make it again with the same seed.")
            self._maps.move_to_end(name)
            return self._maps[name]
