"""The script that the WebUI knows: reads its arguments, opens a session, shows what came of it."""

from __future__ import annotations

import logging
import math
from typing import Any

from modules import scripts

from daam_core.errors import DaamLensError

from . import hosts
from . import sampler_hooks as hook
from .gallery import INNER, UPSCALED, show
from .gallery_runs import CHANGES, Upscaled
from .nested_runs import is_inner_run
from .plot_overrides import asked_by_plot, with_overrides
from .recording_session import RecordingSession
from .recording_store import MOST_RUNS
from .settings import INFOTEXT, NOTE_FIELD, RUNS_FIELD, Settings

logger = logging.getLogger("daam_lens")

PAINTED_ELSEWHERE = (
    "The WebUI is set to let a service on another machine paint, whose attention nobody here can see, so there are no heat "
    "maps. Choose a model of this machine to get them."
)


class DaamLensScript(scripts.Script):  # type: ignore[misc]
    """Always visible, off by default."""

    # Last in line, where a host asks for it (Forge, reForge): a picture is finished when other scripts are done with it.
    sorting_priority = math.inf

    def title(self) -> str:
        return "DAAM Lens"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        from . import panel

        parts, self.infotext_fields, self.paste_field_names = panel.build(lambda name: self.elem_id(f"daam_lens_{name}"))
        return parts

    def setup(self, p: Any, *args: Any) -> None:
        # Where the host's pictures come from a service, this is all that it calls of a script.
        if hosts.page_host().paints_elsewhere():
            try:
                note = PAINTED_ELSEWHERE if Settings.from_args(args).enabled else ""
            except DaamLensError as error:
                note = f"{error} {PAINTED_ELSEWHERE}"
            if note:
                hosts.page_host().comment(p, [note])
                p.extra_generation_params[NOTE_FIELD] = note

    def before_process(self, p: Any, *args: Any) -> None:
        for name in [name for name in p.extra_generation_params if name.startswith(INFOTEXT)]:
            del p.extra_generation_params[name]  # a plot's cells share these with the cell before
        session, p.daam_lens_note = None, ""
        try:
            settings = Settings.from_args(args)
            settings = with_overrides(settings, asked_by_plot(p))
            if settings.enabled:
                session = self._session(settings)
                p.extra_generation_params.update(settings.infotext())
        except DaamLensError as error:
            p.daam_lens_note = f"{error} The picture was made without heat maps."
            logger.error("%s", error)
        hook.open_session(p, session)

    def _session(self, settings: Settings) -> Any:
        """What records a run."""
        return RecordingSession(settings, hosts.current())

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        # The host has its LoRAs in place and is about to encode the prompt.
        session = hook.session_of(p)
        if session is not None:
            session.encode_concepts(p.sd_model)
            session.prove_texts(p)

    def before_hr(self, p: Any, *args: Any) -> None:
        session = hook.session_of(p)
        if session is not None:
            session.prove_texts(p, True)

    def postprocess_image_after_composite(self, p: Any, pp: Any, *args: Any) -> None:
        session = hook.session_of(p)
        if session is not None:
            at, pixels, saved = int(p.batch_index), session.host.pixels(pp.image), session.host.saves(p)
            session.take(int(p.iteration), at, pixels, int(p.seeds[at]), str(p.prompts[at]), saved)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        hook.detach()
        session, inner, runs = hook.session_of(p), False, list[str]()
        upscaled = bool(getattr(p, "txt2img_upscale", False))
        notes = [p.daam_lens_note] if getattr(p, "daam_lens_note", "") else []
        if session is not None:
            before = len(processed.images)
            plotted = bool(asked_by_plot(p))
            inner = is_inner_run()
            alone = upscaled and session.settings.draws and not hosts.page_host().tells_upscaled()
            apart = UPSCALED if alone else INNER
            shown = show(session, p, processed, append=plotted or not (inner or alone), apart=apart)
            notes += shown.notes
            if plotted:
                _first(processed, before)
            session.close()
            hook.open_session(p, None)
            runs = [run.id for run in shown.runs]
            if not inner and not plotted:  # img2img's batch of a folder runs one processing object file by file
                runs = p.daam_lens_runs = [*getattr(p, "daam_lens_runs", ()), *runs][-MOST_RUNS:]
            if runs:
                p.extra_generation_params[RUNS_FIELD] = ", ".join(runs)
        if upscaled:
            beside = hosts.page_host().keeps_upscaled()
            CHANGES.note(str(processed.info), Upscaled(int(processed.seed), "".join(runs[:1]), beside))
        if notes:
            processed.comments += "".join(f"\n{note}" for note in notes)
            if inner:  # the script's own result reads the comments that stand at the processing object
                hosts.page_host().comment(p, notes)
            p.extra_generation_params[NOTE_FIELD] = " ".join(notes)


def _first(processed: Any, drawn: int) -> None:
    """An XYZ plot shows the first image of each cell: on our own axes that is what we drew."""
    if len(processed.images) > drawn:
        processed.images.insert(0, processed.images.pop(drawn))
        processed.infotexts.insert(0, processed.infotexts.pop(drawn))


def _saved(params: Any) -> None:
    """`on_image_saved`: the name of a picture's file. The host saves a picture right after it is composed."""
    session = hook.session_of(params.p) if params.p is not None else None
    if session is not None and session.finished:
        finished = session.finished[-1]
        if not finished.saved or finished.file:
            return  # this file is another one: the grid, a mask
        if (finished.iteration, finished.image) == (getattr(params.p, "iteration", -1), getattr(params.p, "batch_index", -1)):
            finished.file = str(params.filename)
            finished.info = str((params.pnginfo or {}).get("parameters", ""))


def register() -> None:
    """Everything that the host calls besides the script itself; called each time the host loads its scripts."""
    from modules import script_callbacks

    from . import xyz

    script_callbacks.on_cfg_denoiser(hook.attach)
    script_callbacks.on_cfg_denoised(hook.answered)
    script_callbacks.on_cfg_after_cfg(hook.finish)
    script_callbacks.on_script_unloaded(hook.detach)
    script_callbacks.on_before_ui(xyz.add_axes)
    register_page()


def register_page() -> None:
    """The host's page, its settings, its routes and its files."""
    from modules import script_callbacks

    from . import api, options
    from .page import Page

    page = Page()
    script_callbacks.on_image_saved(_saved)
    script_callbacks.on_ui_settings(options.register_options)
    script_callbacks.on_app_started(api.add_routes)
    script_callbacks.on_after_component(page.after_component)
    script_callbacks.on_ui_tabs(page.tabs)
