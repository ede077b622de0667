"""The pictures that were recorded lately, for the tab and the API. Bounded; holds nothing of the host."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from daam_core.heatmaps import HeatMaps

from .settings import Settings

MOST_RUNS = 32
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Run:
    """One recorded picture.

    Attributes:
        id: unguessable.
        maps: its heat maps, the picture inside.
        settings: what was asked for.
        words: the words that were shown.
        seed: of the picture.
        prompt, negative_prompt: as they were typed; empty where the maps come from a record.
    """

    id: str
    maps: HeatMaps
    settings: Settings
    words: tuple[str, ...]
    seed: int = -1
    prompt: str = ""
    negative_prompt: str = ""
    made: float = field(default_factory=time.time)

    @property
    def title(self) -> str:
        """One line for a list: time, seed, the beginning of the prompt."""
        text = " ".join(self.maps.prompt.text.split())
        return (
            f"{time.strftime('%H:%M:%S', time.localtime(self.made))} · {self.seed} · {text[:60]}{'…' if len(text) > 60 else ''}"
        )


class Runs:
    """A bounded memory of runs; the oldest goes first."""

    def __init__(self, most: int = MOST_RUNS, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = Lock()

    def keep(
        self, maps: HeatMaps, settings: Settings, words: list[str], seed: int = -1, prompt: str = "", negative_prompt: str = ""
    ) -> Run:
        """Remember a run under a new id; the oldest ones go where there is no more room."""
        run = Run(secrets.token_hex(8), maps, settings, tuple(words), seed, prompt, negative_prompt)
        with self._lock:
            self._runs[run.id] = run
            while len(self._runs) > 1 and (len(self._runs) > self._most or self.bytes > self._most_bytes):
                self._runs.popitem(last=False)
        return run

    def find(self, id: str) -> Run | None:
        with self._lock:
            return self._runs.get(id)

    def newest_first(self) -> list[Run]:
        with self._lock:
            return list(reversed(self._runs.values()))

    @property
    def bytes(self) -> int:
        return sum(maps_bytes(run.maps) for run in self._runs.values())


def maps_bytes(maps: HeatMaps) -> int:
    """Bytes of all tensors in maps; the picture, and the negative prompt's maps included."""
    groups: list[Any] = [maps.sums, maps.late, maps.heads, maps.self_attention, maps.detail and maps.detail.values]
    own = sum(int(x.nbytes) for group in groups if group for x in group.values())
    own += 0 if maps.picture is None else int(maps.picture.nbytes)
    return own + (maps_bytes(maps.negative) if maps.negative else 0)


RUNS = Runs()
"""The page and the API ask for a run long after it was made."""
