"""Whether a run of the host was asked for by the page or the API, or by another script that works on with its pictures."""

from __future__ import annotations

import sys
from types import FrameType

_SCRIPT_MODULES = ("modules.scripts", "modules.scripts_manager")
"""Where the method is that runs a chosen script; the second name is SD.Next's."""


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
