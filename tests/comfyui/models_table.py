"""Writes `docs/models-comfyui.md` from what the checks give in real ComfyUIs: `python -m tests.comfyui.models_table`.

Each class of `comfy.supported_models` is built with small random weights and sampled with Record and without; only what
passed is written. It needs both ComfyUIs (see CONTRIBUTING.md).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from .hosts import PLACES, ROOT, Inside, case_names, find

TARGET = ROOT / "docs" / "models-comfyui.md"
MODULE = "cases_families"
HEAD = """# Models that are read in ComfyUI

Written by `python -m tests.comfyui.models_table` from its own checks in ComfyUI {versions}: each class of
`comfy.supported_models`, small and random, on a picture that is not square, with a positive and a negative prompt.

- **picture**: the latents with Record are bit-identical to those without, and nothing is left on the model.
- **Eq. 6**: the largest error of the maps against float64 probabilities over all keys, as a share of the largest value.
  Where the text is NaN, the keys that turn NaN at the first attention are those that count as text.
- **-**: this version of ComfyUI does not have the class.

| family | class | picture | {columns} |
| --- | --- | --- | {rules} |
"""


def results(version: str) -> list[dict[str, Any]]:
    """What the cases of every family give in one ComfyUI."""
    host = find(version)
    if isinstance(host, str):
        raise SystemExit(f"the table needs both ComfyUIs: {host}")
    with tempfile.TemporaryDirectory() as folder:
        inside = Inside(host, Path(folder) / "log.txt")
        try:
            given = [inside.run(MODULE, case) for case in case_names(MODULE)]
        finally:
            inside.close()
    return [one for value in given if isinstance(value, list) for one in value]


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """The document, from the results of each version."""
    by_class: dict[str, dict[str, dict[str, Any]]] = {}
    for version, each in found.items():
        for one in each:
            by_class.setdefault(one["class"], {})[version] = one
    read = {name: own for name, own in by_class.items() if any("off" in one for one in own.values())}
    lines = sorted(_row(name, own, list(found)) for name, own in read.items())
    rest = {own[max(own)]["network"]: own[max(own)] for name, own in by_class.items() if name not in read}
    refused = "".join(f"- `{network}`: {_reason(one)}.\n" for network, one in sorted(rest.items()))
    head = HEAD.format(versions=" and ".join(found), columns=" | ".join(found), rules=" | ".join("---" for _ in found))
    return f"{head}{chr(10).join(lines)}\n\nNot read, each with this reason:\n\n{refused}"


def _row(name: str, own: dict[str, dict[str, Any]], versions: list[str]) -> str:
    families: list[str] = next((one["families"] for one in own.values() if one["families"]), [])
    cells = [_error(own.get(version)) for version in versions]
    return f"| {', '.join(families) or 'Stable Diffusion 1, 2, XL'} | `{name}` | yes | {' | '.join(cells)} |"


def _error(one: dict[str, Any] | None) -> str:
    if one is None:
        return "-"
    return f"{one['off']:.0e}" if "off" in one else "refused"


def _reason(one: dict[str, Any]) -> str:
    reason = str(one["refused"] or one["reason"])
    return reason.rpartition("the picture was still made: ")[2].rstrip(".")


if __name__ == "__main__":
    TARGET.write_text(table({version: results(version) for version in PLACES}), encoding="utf-8")
    print(TARGET, file=sys.stderr)
