"""The cases of `inside/`, asked one by one. Each version has a test file of its own: two processes share the work."""

from __future__ import annotations

import pytest

from .hosts import INSIDE, Inside, case_names

CASES = [(path.stem, case) for path in sorted(INSIDE.glob("cases_*.py")) for case in case_names(path.stem)]
NAMES = [f"{module.removeprefix('cases_')}-{case.removeprefix('case_')}" for module, case in CASES]


def check(inside: Inside, module: str, case: str) -> None:
    """Run a case in ComfyUI's own process; skip where this version lacks the model."""
    if inside.run(module, case) == "absent":
        pytest.skip("this version of ComfyUI does not have the model")
