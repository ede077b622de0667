"""Which recordings are of the pictures that stand in the host's gallery."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .recording_store import MOST_RUNS, RECORDINGS, StoredRecording
from .settings import RUNS_FIELD


@dataclass(frozen=True)
class Upscaled:
    """A picture that the host's button for hires fix put into a gallery that was there already.

    Attributes:
        seed: of the picture.
        run: the id of its recording; empty where it was not recorded.
        beside: whether the picture that it was made of stays in the gallery.
    """

    seed: int
    run: str
    beside: bool
    made: float = field(default_factory=time.time)


class GalleryChanges:
    """What that button changed lately, by the infotext of the new picture: the host's JSON about its gallery has that, and
    tells of the run before otherwise."""

    def __init__(self, most: int = MOST_RUNS) -> None:
        self._most, self._upscaled = most, dict[str, Upscaled]()

    def note(self, infotext: str, change: Upscaled) -> None:
        self._upscaled.pop(infotext, None)
        self._upscaled[infotext] = change
        while len(self._upscaled) > self._most:
            del self._upscaled[next(iter(self._upscaled))]

    def applied(self, runs: Sequence[StoredRecording], infotexts: Sequence[Any]) -> list[StoredRecording]:
        """The runs of the pictures that stand in a gallery now.

        Args:
            runs: those of the run that filled it.
            infotexts: of what stands in it.
        """
        found = list(runs)
        for text in infotexts:
            change = self._upscaled.get(text) if isinstance(text, str) else None
            if change is None or any(run.made > change.made for run in runs):
                continue  # the same settings once more, and not by that button
            new = RECORDINGS.find(change.run) if change.run else None
            at = next((i for i, run in enumerate(found) if run.seed == change.seed), len(found))
            found[at + change.beside : at + 1] = [] if new is None else [new]
        return found


CHANGES = GalleryChanges()
"""The page asks again whenever its gallery changes."""


def params_of(info: str) -> dict[str, Any]:
    """The host's `extra_generation_params` out of its JSON about a gallery; nothing where there are none."""
    return _params(_parsed(info))


def runs_of(info: str) -> list[StoredRecording]:
    """The runs whose pictures stand in the gallery, those that were dropped for newer ones left out."""
    told = _parsed(info)
    ids, texts = str(_params(told).get(RUNS_FIELD, "")).split(", "), told.get("infotexts")
    found = [run for id in ids if (run := RECORDINGS.find(id)) is not None]
    return CHANGES.applied(found, texts if isinstance(texts, list) else [])


def _params(told: dict[str, Any]) -> dict[str, Any]:
    found = told.get("extra_generation_params")
    return found if isinstance(found, dict) else {}


def _parsed(info: str) -> dict[str, Any]:
    try:
        found = json.loads(info or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
