"""Every way to sample that people use, in a real ComfyUI 0.33: the picture is untouched, the maps are the equation's.

The cases themselves are in `inside/`: they run in ComfyUI's own process.
"""

from __future__ import annotations

import pytest

from .hosts import Inside
from .modes import CASES, NAMES, check

pytestmark = pytest.mark.host


@pytest.mark.parametrize("inside", ["0.33"], indirect=True)
@pytest.mark.parametrize(("module", "case"), CASES, ids=NAMES)
def test_in_comfyui(inside: Inside, module: str, case: str) -> None:
    check(inside, module, case)
