"""Records that version 0.1.0 wrote still load: one made with it, beside the numbers that it showed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from daam_core import HeatMaps
from daam_core.errors import BadRecord
from daam_core.maps import safetensors_file as records

DATA = Path(__file__).parent / "data"
RECORD = DATA / "record-0.1.0.safetensors"
"""The model inside, 2 steps at 32 x 64 pixels: "a red house and a green tree", negative prompt "blurry star", layers, steps and
heads apart."""


@pytest.fixture
def shown() -> Any:
    return json.loads((DATA / "record-0.1.0.json").read_text(encoding="utf-8"))


def equal(heat: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(heat, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_its_maps_are_those_that_version_0_1_0_showed(shown: Any) -> None:
    maps = HeatMaps.load(RECORD)
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    assert maps.size == (32, 64) and maps.picture is not None and maps.picture.shape == (32, 64, 3)
    assert maps.aggregation == "sum" and maps.specials and maps.steps == 2 and len(maps.layers) == 10
    equal(maps.heat_map("house"), shown["house"])
    equal(maps.select(steps=[1]).heat_map("tree"), shown["tree, step 1"])
    equal(maps.select(heads=[0]).heat_map("tree"), shown["tree, head 0"])
    assert maps.self_attention is not None and list(maps.self_attention) == [(4, 8)]
    assert int(maps.mask("house", "threshold").sum()) == shown["pixels of the house's mask"]


def test_its_negative_side_comes_along(shown: Any) -> None:
    negative = HeatMaps.load(RECORD).negative
    assert negative is not None and negative.words == ["blurry", "star"]
    assert negative.aggregation == "sum" and negative.specials
    equal(negative.heat_map("star"), shown["negative star"])


def test_a_record_of_a_newer_version_is_refused_by_a_sentence(tmp_path: Path) -> None:
    newer = tmp_path / "newer.safetensors"
    newer.write_bytes(RECORD.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(BadRecord, match=r"record of version 2; this DAAM Lens reads version 1\. Update it"):
        HeatMaps.load(newer)
    tensors, header = records.read(RECORD)
    with pytest.raises(BadRecord, match=r"rule that this DAAM Lens does not know .*'median'"):
        HeatMaps.load(records.write(newer, tensors, header | {"rule": "median"}))


def test_loading_a_record_imports_no_hook() -> None:
    """A page, a study or a script that looks at records needs neither hooks nor diffusers."""
    code = (
        "import sys; from daam_core import HeatMaps; maps = HeatMaps.load(sys.argv[1]); maps.heat_map('house'); "
        "maps.mask('house'); print([m for m in sys.modules if m.startswith(('daam_core.capture', 'daam_core.diffusers', "
        "'diffusers', 'transformers'))])"
    )
    root = Path(records.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(RECORD)], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
