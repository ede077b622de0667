"""The script that SD.Next knows: its hooks before and after sampling, where its sampler calls none of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from . import sampler_hooks as hook
from .finished_image import FinishedImage
from .gallery import show
from .hosts.sdnext import SDNext
from .pipeline_session import PipelineSession
from .script import DaamLensScript, register_page
from .settings import NOTE_FIELD, RUNS_FIELD, Settings

STOPPED = (
    "The run was stopped, and SD.Next shows nothing of a script then: the maps of the pictures that were finished are in the "
    "tab DAAM Lens, and beside the pictures where these are saved."
)


class PipelineScript(DaamLensScript):
    """Always visible, off by default. Its methods are called with what belongs to other scripts, too."""

    def _session(self, settings: Settings) -> PipelineSession:
        return PipelineSession(settings, SDNext())

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        session = _session_of(p)
        if session is not None:
            session.attach(p)

    def before_hr(self, p: Any, *args: Any) -> None:
        """Its texts are proved while they are encoded."""

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        session = _session_of(p)
        if session is not None:
            session.release()
            at, pixels = int(p.batch_index), session.host.pixels(pp.image)
            prompt, saved = str(p.prompts[at]), session.host.saves(p)
            session.take(FinishedImage(int(p.iteration), at, pixels, int(p.seeds[at]), prompt, saved))


def _session_of(p: Any) -> PipelineSession | None:
    session: Any = hook.session_of(p)
    return session if isinstance(session, PipelineSession) else None


def _left(p: Any) -> None:
    """`on_after_process`, which comes even where a run was stopped or failed: the host shows what it has then, and calls no
    script's `postprocess`."""
    params = getattr(p, "extra_generation_params", None)
    note, session = getattr(p, "daam_lens_note", ""), _session_of(p)
    if session is not None:
        results = SimpleNamespace(images=[], infotexts=[], info="", index_of_first_image=0, batch_size=p.batch_size)
        shown = show(session, p, results, append=False, apart=STOPPED)
        session.close()
        hook.open_session(p, None)
        note = " ".join(shown.notes)
        if shown.runs and params is not None:
            params[RUNS_FIELD] = ", ".join(run.id for run in shown.runs)
    if note and params is not None:
        params[NOTE_FIELD] = note


def register() -> None:
    """Everything that the host calls besides the script itself; called each time the host loads its scripts."""
    from modules import script_callbacks

    from . import xyz

    script_callbacks.on_after_process(_left)
    script_callbacks.on_before_ui(xyz.add_axes)
    register_page()
