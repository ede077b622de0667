"""What goes wrong costs no picture and is one sentence: full disks, failing recorders, foreign models and records."""

from __future__ import annotations

import errno
import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from daam_core import HeatMaps
from daam_core.errors import UnsupportedModel
from daam_webui import gallery, hosts
from daam_webui import sampler_hooks as hook
from daam_webui.finished_image import FinishedImage
from daam_webui.hosts.a1111 import A1111
from daam_webui.hosts.forge_neo import ForgeNeo
from daam_webui.pipeline_session import PipelineSession
from daam_webui.read_picture import Reading, read_picture
from daam_webui.recording_session import RecordingSession
from daam_webui.recording_store import RECORDINGS
from daam_webui.schedule import PassTexts
from daam_webui.settings import RUNS_FIELD, Settings

from .test_adapter import maps_of, words_prompt

PICTURE = np.zeros((64, 64, 3), np.uint8)


class Host(A1111):
    """A host without a program around it: its disk is full, and each prompt is told in every step."""

    def saves(self, p: Any) -> bool:
        return hasattr(p, "outpath_samples")

    def save(self, *_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    def changes_keys(self) -> bool:
        return False

    def pass_texts(self, p: Any, second: bool) -> PassTexts:
        return PassTexts(tuple((((9, text),),) for text in p.prompts), tuple(((9, text),) for text in p.negative_prompts))


class Finished:
    """A session that has one picture, and its maps."""

    settings, failure, host = Settings(True, record=True), "", Host()
    finished = (FinishedImage(0, 0, PICTURE, 7, "a red house"),)

    def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
        yield self.finished[0], maps_of(words_prompt("a red house"))

    def notes(self) -> list[str]:
        return []


def results() -> tuple[Any, Any]:
    """The host's processing object and its results: one picture."""
    p = SimpleNamespace(all_prompts=["a red house"], all_negative_prompts=[""], outpath_samples="nowhere")
    processed = SimpleNamespace(images=["picture"], infotexts=["info"], info="info", index_of_first_image=0, batch_size=1)
    return p, processed


def test_a_full_disk_leaves_everything_in_the_gallery() -> None:
    p, processed = results()
    shown = gallery.show(Finished(), p, processed)  # type: ignore[arg-type]
    assert len(shown.notes) == 1 and "No space left on device" in shown.notes[0]
    assert processed.images[0] == "picture" and len(processed.images) == len(processed.infotexts) == 3
    assert RECORDINGS.find(shown.runs[0].id) is not None


def test_files_lie_beside_the_pictures_that_the_host_keeps(tmp_path: Path) -> None:
    """It writes nothing of what was interrupted or skipped; at the run's end it may say otherwise of all pictures."""
    written: list[int] = []

    class Keeps(Host):
        def save(self, image: Any, p: Any, picture_file: str, suffix: str, seed: int, text: str, infotext: str | None) -> str:
            written.append(seed)
            return str(tmp_path / f"{seed}{suffix}.png")

    class Two(Finished):
        settings, host = Settings(True), Keeps()

        def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
            for image, saved in enumerate((True, False, True)):
                yield FinishedImage(0, image, PICTURE, 7 + image, "a red house", saved), maps_of(words_prompt("a red house"))

    p, processed = results()
    p.all_prompts, p.all_negative_prompts = ["a red house"] * 3, [""] * 3
    shown = gallery.show(Two(), p, processed)  # type: ignore[arg-type]
    assert not shown.notes and set(written) == {7, 9}
    assert len(processed.images) == 1 + 3 * 2


def test_pictures_of_another_script_behind_all_keep_their_texts() -> None:
    """PiD in Forge Neo shows its own behind the host's pictures, and adds their texts before ours."""
    p, processed = results()
    processed.extra_images, processed.infotexts = ["theirs"], ["info", "of theirs"]
    gallery.show(Finished(), p, processed)  # type: ignore[arg-type]
    told = dict(zip([*map(_name, processed.images), *processed.extra_images], processed.infotexts, strict=True))
    assert told["picture"] == "info" and told["theirs"] == "of theirs"
    assert len(told) == 4 and all(text == name for name, text in told.items() if "DAAM Lens shows" in name)


@pytest.mark.parametrize("text", ["blue fog", "", " "])
def test_a_negative_prompt_that_the_model_was_not_given_is_told(text: str) -> None:
    """Forge and its kin leave it out at a CFG scale of 1; where there is none, nobody misses it."""
    p, processed = results()
    p.all_negative_prompts = [text]
    session = Finished()
    session.settings = Settings(True, negative=True)
    notes = gallery.show(session, p, processed).notes  # type: ignore[arg-type]
    assert (gallery.NOT_GIVEN in notes) == bool(text.strip())


@pytest.mark.parametrize("finished", [1, 0])
def test_a_stopped_run_of_sdnext_keeps_its_maps_and_is_told(monkeypatch: pytest.MonkeyPatch, finished: int) -> None:
    """It calls no script's `postprocess` where a run was interrupted or skipped, and shows the pictures that it has."""
    modules = SimpleNamespace(scripts=SimpleNamespace(Script=object))
    with _imported(monkeypatch, "daam_webui.pipeline_script", modules) as script:
        session = PipelineSession(Settings(True), Host())  # type: ignore[arg-type]
        session._maps = [(FinishedImage(0, 0, PICTURE, 7, "a red house", False), maps_of(words_prompt("a red house")))][
            :finished
        ]
        p, _ = results()
        p.extra_generation_params, p.batch_size = {}, 1
        hook.open_session(p, session)  # type: ignore[arg-type]
        script._left(p)
        assert hook.session_of(p) is None
        note, run = (p.extra_generation_params.get(f"DAAM Lens {name}", "") for name in ("note", "runs"))
        assert ("in the tab DAAM Lens" in note) == (RECORDINGS.find(run) is not None) == bool(finished)
        assert ("No picture was finished" in note) == (not finished)
        script._left(p)  # a run without us
        assert p.extra_generation_params["DAAM Lens note"] == note


def test_the_pictures_of_a_folder_are_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """img2img's batch runs one processing object file by file, and shows them all; the last one's words stood below."""
    with _imported(monkeypatch, "daam_webui.script", SimpleNamespace(scripts=SimpleNamespace(Script=object))) as script:
        lens = script.DaamLensScript()
        p, _ = results()
        p.extra_generation_params = {}
        each: list[str] = []
        for _ in range(3):
            processed = results()[1]
            processed.comments, each = "", [*each, p.extra_generation_params.get(RUNS_FIELD, "")]
            lens.before_process(p, False)
            assert RUNS_FIELD not in p.extra_generation_params, "in the next picture's infotext"
            session: Any = Finished()
            session.close = lambda: None
            hook.open_session(p, session)
            lens.postprocess(p, processed)
        runs = p.extra_generation_params[RUNS_FIELD].split(", ")
        assert len(set(runs)) == 3 and each[1:] == [runs[0], ", ".join(runs[:2])]


@pytest.mark.parametrize(("known", "drawn", "shown"), [(True, True, 1), (False, True, 2), (True, False, 1)])
def test_the_button_for_hires_fix_moves_no_text_of_the_gallery(
    monkeypatch: pytest.MonkeyPatch, known: bool, drawn: bool, shown: int
) -> None:
    """Forge puts all pictures of such a run into the gallery and one text, so that every text behind was another picture's."""
    opts = SimpleNamespace(hires_button_gallery_insert=False) if known else SimpleNamespace()
    modules = SimpleNamespace(scripts=SimpleNamespace(Script=object), shared=SimpleNamespace(opts=opts))
    monkeypatch.setattr(hosts, "page_host", A1111)
    with _imported(monkeypatch, "daam_webui.script", modules) as script:
        p, processed = results()
        p.extra_generation_params, p.txt2img_upscale = {}, True
        processed.comments, processed.seed = "", 7
        session: Any = Finished()
        session.settings = Settings(True, overlays=drawn, words="house")
        session.close = lambda: None
        hook.open_session(p, session)
        script.DaamLensScript().postprocess(p, processed)
        assert len(processed.images) == shown
        assert (script.UPSCALED in processed.comments) == (known and drawn)


@contextmanager
def _imported(monkeypatch: pytest.MonkeyPatch, name: str, modules: Any) -> Iterator[Any]:
    """A module of ours that imports a host's; forgotten afterwards."""
    mine = [name, "daam_webui.script"]
    monkeypatch.setitem(sys.modules, "modules", modules)
    for one in mine:
        monkeypatch.delitem(sys.modules, one, raising=False)
    try:
        yield importlib.import_module(name)
    finally:
        for one in mine:
            if sys.modules.pop(one, None) is not None:
                delattr(sys.modules["daam_webui"], one.rpartition(".")[2])


def _name(image: Any) -> str:
    return str(image if isinstance(image, str) else image.info["parameters"])


class Model(torch.nn.Module):
    """A model without a word of cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = torch.nn.Conv2d(4, 4, 1)
        self.cond_stage_model = None


def sampler(model: Any, session: RecordingSession | None) -> Any:
    """What a host tells before a prediction."""
    p = SimpleNamespace(sd_model=SimpleNamespace(model=model, cond_stage_model=None), iteration=0)
    p.prompts, p.negative_prompts, p.enable_hr = ["a red house"], [""], False
    hook.open_session(p, session)

    class Params:
        denoiser = SimpleNamespace(p=p, step=0)
        text_cond = text_uncond = torch.zeros(1, 77, 8)
        sigma = torch.ones(1)

    return Params()


def test_an_unknown_model_is_one_sentence_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The model's text encoder cannot be read: every step goes on, nothing hooked, and the user is told once."""
    session = RecordingSession(Settings(True), Host())
    model = Model()
    with caplog.at_level(logging.INFO, "daam_lens"):
        for _ in range(3):
            params = sampler(model, session)
            hook.attach(params)
            model.diffusion_model(torch.zeros(2, 4, 8, 8))
            hook.finish(params)
    assert len(caplog.records) == 1 and not caplog.records[0].exc_info and "text encoder" in caplog.text
    assert not model.diffusion_model._forward_hooks and not model.diffusion_model._forward_pre_hooks
    shown = gallery.show(session, *results())
    assert len(shown.notes) == 1 and "text encoder" in shown.notes[0] and not shown.runs


@pytest.mark.parametrize(("images", "said"), [(["picture"], "without telling DAAM Lens"), ([], "No picture was finished")])
def test_a_host_that_tells_nothing_is_not_said_to_have_made_nothing(images: list[str], said: str) -> None:
    """SD.Next registers the callbacks of a sampler and never calls them."""
    p, processed = results()
    processed.images = images
    assert said in gallery.show(RecordingSession(Settings(True), Host()), p, processed).notes[0]


@pytest.mark.parametrize(("asked", "in_second"), [("second", False), ("first", True)])
def test_a_picture_whose_chosen_pass_was_not_sampled_is_told(asked: str, in_second: bool) -> None:
    """Stopped in the first pass; or the page's button for hires fix, whose first pass is a picture of the gallery."""
    session, model = RecordingSession(Settings(True, hires=asked), Host()), Model()
    params = sampler(model, session)
    params.denoiser.p.enable_hr, params.denoiser.p.is_hr_pass = True, in_second
    hook.attach(params)
    model.diffusion_model(torch.zeros(2, 4, 8, 8))
    hook.finish(params)
    session.take(0, 0, PICTURE, 7, "a red house")
    shown = gallery.show(session, *results())
    assert len(shown.notes) == 1 and f"without the {asked} pass" in shown.notes[0] and not shown.runs


def test_a_picture_that_something_else_painted_is_told() -> None:
    session = RecordingSession(Settings(True), Host())
    session.take(0, 0, PICTURE, 7, "a red house")
    shown = gallery.show(session, *results())
    assert len(shown.notes) == 1 and "Not one sampling step" in shown.notes[0]


def test_a_picture_without_maps_hides_nothing_of_the_others() -> None:
    session = PipelineSession(Settings(True, hires="second", concepts="sky"), Host())  # type: ignore[arg-type]
    session._maps = [(FinishedImage(0, 0, PICTURE, 7, "a red house", False), maps_of(words_prompt("a red house")))]
    session._left_out = True
    session.take(FinishedImage(1, 0, PICTURE, 8, "a red house", False))
    shown = gallery.show(session, *results())
    assert len(shown.runs) == 1 and len(shown.notes) == 2
    assert shown.notes[0] == session.concept_failures()[0] and "without the second pass" in shown.notes[1]


def test_a_recorder_that_fails_is_one_sentence() -> None:
    session = RecordingSession(Settings(True), Host())
    session.take(0, 0, PICTURE, 7, "a red house")
    session.fail(KeyError("the first"))
    session.fail(RuntimeError("the second"))
    p, processed = results()
    shown = gallery.show(session, p, processed)
    assert len(shown.notes) == 1 and "KeyError" in shown.notes[0] and "the first" not in shown.notes[0]
    assert processed.images == ["picture"]


@pytest.mark.parametrize(("mode", "asked"), [("api", True), ("api", False), ("local", True), (None, True)])
def test_a_picture_that_a_service_paints_is_told_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, asked: bool
) -> None:
    """Forge Neo sends a prompt away without calling any script but the first time."""
    opts = SimpleNamespace() if mode is None else SimpleNamespace(forge_model_mode=mode)
    modules = SimpleNamespace(scripts=SimpleNamespace(Script=object), shared=SimpleNamespace(opts=opts))
    monkeypatch.setattr(hosts, "page_host", ForgeNeo)
    p = SimpleNamespace(comments={}, extra_generation_params={})
    with _imported(monkeypatch, "daam_webui.script", modules) as script:
        script.DaamLensScript().setup(p, {"enabled": asked})
    told = p.extra_generation_params.get("DAAM Lens note", "")
    assert list(p.comments) == ([told] if told else [])
    assert ("service" in told) == (mode == "api" and asked)


def test_a_picture_is_not_read_where_a_service_paints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host would send the prompt away, and pay for a picture."""
    opts = SimpleNamespace(forge_model_mode="api")
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=SimpleNamespace(opts=opts)))
    monkeypatch.setattr(hosts, "page_host", ForgeNeo)
    with pytest.raises(UnsupportedModel, match="service"):
        read_picture(Reading(PICTURE, "a red house"))


@pytest.mark.parametrize("what", ["foreign version", "cut off", "empty"])
def test_a_record_that_cannot_be_read_is_the_callers_fault(what: str, tmp_path: Path) -> None:
    fastapi = pytest.importorskip("fastapi", reason="fastapi comes with a WebUI, or with pip install fastapi httpx")
    pytest.importorskip("httpx", reason="fastapi's test client needs httpx")
    from fastapi.testclient import TestClient

    from daam_webui.page_routes import PREFIX, page_routes

    data = maps_of(words_prompt("a red house")).save(tmp_path / "one.safetensors").read_bytes()
    assert data.count(b'"version":"1"') == 1
    sent = {"foreign version": data.replace(b'"version":"1"', b'"version":"9"'), "cut off": data[:-9], "empty": b""}[what]
    app = fastapi.FastAPI()
    app.include_router(page_routes([]))
    with TestClient(app) as client:
        headers = {"Content-Type": "application/octet-stream"}
        answer = client.post(f"{PREFIX}/records", content=sent, headers=headers)
        assert answer.status_code == 422 and answer.json()["detail"].startswith("The file")
        assert ("version 9" in answer.json()["detail"]) == (what == "foreign version")
        assert client.post(f"{PREFIX}/records", content=data, headers=headers).status_code == 200
