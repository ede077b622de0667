"""What Record costs in a real ComfyUI: `python -m benchmarks.comfyui [--shapes tiny sdxl] [--quick]`.

The work itself runs in ComfyUI's own interpreter (see `comfyui_inside.py`). Runs take turns, without and with Record, and
the figures are medians (the ratio, of those within a turn); "inside Record" is how long its own code took in one run.
comfyui-daam runs after them, where COMFYUI_DAAM_PATH names a checkout of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.comfyui.hosts import PLACES, ROOT, find

from .report import table, write

HEAD = [
    "ComfyUI", "work", "with", "run, median", "ratio", "inside Record", "kernels a layer and step", "kept for a picture",
    "waits a step",
]  # fmt: skip
FIELDS = ["work", "with", "time", "ratio", "own", "kernels", "kept", "waits"]


def measured(version: str, shape: str, quick: bool) -> list[list[str]]:
    """Rows of one shape in one ComfyUI, or one row with the reason why there are none."""
    host = find(version)
    if isinstance(host, str):
        return [[version, shape, host, "-", "-", "-", "-", "-", "-"]]
    script = str(Path(__file__).with_name("comfyui_inside.py"))
    command = [host.python, script, str(host.path), str(ROOT), shape, str(int(quick))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=host.path, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return [[version, *(str(row[name]) for name in FIELDS)] for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=["tiny", "sdxl"], default=["tiny", "sdxl"])
    parser.add_argument("--versions", nargs="+", choices=list(PLACES), default=list(PLACES))
    parser.add_argument("--quick", action="store_true", help="two short turns: does it run at all?")
    args = parser.parse_args()
    for shape in args.shapes:
        rows = [row for version in args.versions for row in measured(version, shape, args.quick)]
        if args.quick:
            print(table(HEAD, rows))
        else:
            write(f"Record in ComfyUI: {shape}", table(HEAD, rows))


if __name__ == "__main__":
    main()
