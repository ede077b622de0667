"""Every way to sample that people use, in a real ComfyUI: the picture is untouched, the maps are the equation's.

The cases themselves are in `inside/`: they run in ComfyUI's own process.
"""

from __future__ import annotations

import pytest

from .hosts import INSIDE, Inside, case_names

pytestmark = pytest.mark.host
CASES = [(path.stem, case) for path in sorted(INSIDE.glob("cases_*.py")) for case in case_names(path.stem)]
NAMES = [f"{module.removeprefix('cases_')}-{case.removeprefix('case_')}" for module, case in CASES]


@pytest.mark.parametrize(("module", "case"), CASES, ids=NAMES)
def test_in_comfyui(inside: Inside, module: str, case: str) -> None:
    if inside.run(module, case) == "absent":
        pytest.skip("this version of ComfyUI does not have the model")
