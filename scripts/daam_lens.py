"""DAAM Lens for AUTOMATIC1111, Forge and reForge: the door. Everything is in `daam_webui`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from daam_webui.script import DaamLensScript, register  # noqa: E402

__all__ = ["DaamLensScript"]
register()
