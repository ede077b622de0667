"""Who asked for a run of the host: the page or the API, or another script that works on with its pictures."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

_SCRIPT_MODULES = ("modules.scripts", "modules.scripts_manager")
"""Where the method is that runs a chosen script; the second name is SD.Next's."""
_RUNS = ("process_images", "process_images_inner")
"""The functions of `modules.processing` that run a processing object."""


def asked_by(p: Any) -> str:
    """Who was logged in to the page that asked for a run; empty where nobody was.

    A script that makes pictures out of a run's (ADetailer) has processing objects of its own, which nobody asked for; the
    host's processing object around it is told by the call stack.
    """
    frame: FrameType | None = sys._getframe(1)
    user = getattr(p, "user", None)
    while not user and frame is not None:
        module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
        if (module == "modules.processing" and name in _RUNS) or (module in _SCRIPT_MODULES and name == "run"):
            user = getattr(frame.f_locals.get("p"), "user", None)
        frame = frame.f_back
    return str(user or "")


def is_inner_run() -> bool:
    """Whether the host's `process_images` was called from inside a script or another run of it.

    Scripts such as SD upscale paste every image that an inner run gives back into their own picture; ours may not be among
    them. Only the call stack tells, in all hosts and for all scripts, who asked: the processing object, its arguments and
    its copies look the same from the page and from a script.
    """
    frame: FrameType | None = sys._getframe(1)
    runs = 0
    while frame is not None:
        module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
        if (module, name) == ("modules.processing", "process_images_inner"):
            runs += 1
        if runs > 1 or (runs == 1 and name == "run" and module in _SCRIPT_MODULES):
            return True
        frame = frame.f_back
    return False
