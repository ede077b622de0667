"""DAAM Lens for AUTOMATIC1111, Forge, reForge and SD.Next: the door. Everything is in `daam_webui`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from daam_webui import hosts  # noqa: E402

if hosts.paints_with_pipelines():
    from daam_webui.pipeline_script import PipelineScript as Script
    from daam_webui.pipeline_script import register
else:
    from daam_webui.script import DaamLensScript as Script  # type: ignore[assignment]
    from daam_webui.script import register

__all__ = ["Script"]
register()
