"""The pictures that were recorded lately, for the tab and the API. Bounded; holds nothing of the host."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from daam_core.lru_cache import LRUCache
from daam_core.maps.heatmaps import HeatMaps
from daam_core.maps.prompt_report import PromptReport

from .settings import Settings

MOST_RUNS = 32
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class StoredRecording:
    """One recorded picture.

    Attributes:
        id: unguessable.
        maps: its heat maps, the picture inside.
        settings: what was asked for.
        words: the words that were shown.
        seed: of the picture.
        prompt, negative_prompt: as they were typed; empty where the maps come from a record.
        report: what each word did, made with the maps, so that the page need not wait for it; None without words.
        user: who was logged in to the page that asked for it; empty where nobody has to, and of the API.
    """

    id: str
    maps: HeatMaps
    settings: Settings
    words: tuple[str, ...]
    seed: int = -1
    prompt: str = ""
    negative_prompt: str = ""
    report: PromptReport | None = None
    user: str = ""
    made: float = field(default_factory=time.time)

    @property
    def title(self) -> str:
        """One line for a list: time, seed, the beginning of the prompt."""
        text = " ".join(self.maps.prompt.text.split())
        return (
            f"{time.strftime('%H:%M:%S', time.localtime(self.made))} · {self.seed} · {text[:60]}{'…' if len(text) > 60 else ''}"
        )


class RecordingStore:
    """A bounded memory of runs (see `LRUCache`)."""

    def __init__(self, most: int = MOST_RUNS, most_bytes: int = MOST_BYTES) -> None:
        self._runs: LRUCache[StoredRecording] = LRUCache(most, most_bytes, lambda run: run.maps.nbytes)

    def keep(
        self,
        maps: HeatMaps,
        settings: Settings,
        words: list[str],
        seed: int = -1,
        prompt: str = "",
        negative_prompt: str = "",
        report: PromptReport | None = None,
        user: str = "",
    ) -> StoredRecording:
        """Remember a run under a new id; others go where there is no more room."""
        run = StoredRecording(secrets.token_hex(8), maps, settings, tuple(words), seed, prompt, negative_prompt, report, user)
        self._runs.keep(run, run.id)
        return run

    def find(self, id: str, user: str | None = None) -> StoredRecording | None:
        """A run; where a `user` is given, one of theirs."""
        found = self._runs.find(id)
        return found if found is None or user in (None, found.user) else None

    def newest_first(self, user: str | None = None) -> list[StoredRecording]:
        """The runs of a user; None is everybody's."""
        mine = [run for run in self._runs.values() if user in (None, run.user)]
        return sorted(mine, key=lambda run: run.made)[::-1]


RECORDINGS = RecordingStore()
"""The page and the API ask for a run long after it was made."""
