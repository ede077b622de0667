"""The row below the gallery after the host's own button for hires fix, whose JSON still tells of the run before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daam_webui import gallery_runs
from daam_webui.gallery_runs import GalleryChanges, Upscaled, runs_of
from daam_webui.recording_store import RecordingStore, StoredRecording
from daam_webui.settings import RUNS_FIELD, Settings

from .test_adapter import maps_of, words_prompt


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> RecordingStore:
    store = RecordingStore()
    monkeypatch.setattr(gallery_runs, "RECORDINGS", store)
    monkeypatch.setattr(gallery_runs, "CHANGES", GalleryChanges())
    return store


def kept(store: RecordingStore, seed: int) -> StoredRecording:
    return store.keep(maps_of(words_prompt("a red house"), 2), Settings(True), ["house"], seed)


@pytest.mark.parametrize("beside", [False, True])
def test_the_new_picture_stands_where_the_host_puts_it(store: RecordingStore, beside: bool) -> None:
    first, second, changes = kept(store, 7), kept(store, 8), GalleryChanges()
    new = kept(store, 7)
    changes.note("upscaled", Upscaled(7, new.id, beside))
    found = changes.applied([first, second], ["grid", "upscaled", "seed 8", None])
    assert found == ([first, new, second] if beside else [new, second])
    assert changes.applied([first, second], ["seed 7", "seed 8"]) == [first, second], "another gallery"
    again = kept(store, 7)  # the same settings once more, by the ordinary button
    assert changes.applied([again], ["upscaled"])[0] is again


def test_a_new_picture_without_maps_has_no_report_of_the_one_before(store: RecordingStore) -> None:
    first, changes = kept(store, 7), GalleryChanges(most=2)
    changes.note("upscaled", Upscaled(7, "", False))
    assert changes.applied([first], ["upscaled"]) == []
    assert changes.applied([], ["upscaled"]) == []
    for i in range(3):
        changes.note(str(i), Upscaled(i, "", False))
    assert changes.applied([first], ["upscaled"]) == [first], "forgotten for newer ones"


def test_the_row_reads_it_out_of_the_hosts_json(store: RecordingStore) -> None:
    old, new = kept(store, 7), kept(store, 7)
    gallery_runs.CHANGES.note("upscaled", Upscaled(7, new.id, False))
    info: dict[str, Any] = {"extra_generation_params": {RUNS_FIELD: old.id}, "infotexts": ["upscaled"]}
    assert runs_of(json.dumps(info)) == [new]
    for broken in ("[]", "7", '{"infotexts": 5}', "no JSON", ""):
        assert runs_of(broken) == []
