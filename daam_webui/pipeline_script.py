"""The script that SD.Next knows: its hooks before and after sampling, where its sampler calls none of its own."""

from __future__ import annotations

from typing import Any

from . import sampler_hooks as hook
from .finished_image import FinishedImage
from .hosts.sdnext import SDNext
from .pipeline_session import PipelineSession
from .script import DaamLensScript, register_page
from .settings import Settings


class PipelineScript(DaamLensScript):
    """Always visible, off by default. Its methods are called with what belongs to other scripts, too."""

    def _session(self, settings: Settings) -> PipelineSession:
        return PipelineSession(settings, SDNext())

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        session = _session_of(p)
        if session is not None:
            session.watch(p)

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
    """`on_after_process`, which comes even where a run was interrupted."""
    session = _session_of(p)
    if session is not None:
        session.close()
        hook.open_session(p, None)


def register() -> None:
    """Everything that the host calls besides the script itself; called each time the host loads its scripts."""
    from modules import script_callbacks

    from . import xyz

    script_callbacks.on_after_process(_left)
    script_callbacks.on_before_ui(xyz.add_axes)
    register_page()
