"""Which models were recorded in which WebUI: noted where their tests pass, printed in docs/models.md.

`DAAM_LENS_NOTE_CHECKED=1 pytest tests/webui` writes what passes into `checked_models.json`: family -> WebUI -> version of ours.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from daam_core import __version__

FILE = Path(__file__).with_name("checked_models.json")
HOSTS = {
    "a1111": "AUTOMATIC1111", "forge": "Forge", "reforge": "reForge", "classic": "Forge classic", "neo": "Forge Neo",
    "sdnext": "SD.Next",
}  # fmt: skip
"""What people call the hosts of the tests."""


def note_checked(host: str, family: str) -> None:
    """A test that records a model of this family in a host has passed.

    Args:
        host: one of `HOSTS`.
    """
    if not os.environ.get("DAAM_LENS_NOTE_CHECKED"):
        return
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    known.setdefault(family, {})[HOSTS[host]] = __version__
    ordered = {name: dict(sorted(known[name].items())) for name in sorted(known, key=str.lower)}
    FILE.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
