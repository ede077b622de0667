"""Forge Neo's transformers in its own interpreter: its classes, tokenizers and sampler, reduced and with random weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daam_core.capture.forge_families import FORGE_FAMILIES
from daam_core.capture.forge_streams import FORGE_CONCEPT_FAMILIES

from .checked import note_checked
from .conftest import WITNESS
from .hosts import ROOT, SETTINGS, Server, find
from .running import Live

pytestmark = [pytest.mark.host, pytest.mark.slow]
CASE = Path(__file__).with_name("neo") / "case.py"
ONE_PART = ("Flux.1", "Chroma", "Lumina 2", "Wan")
"""Families whose host's encoder gives the model one part of a text with BREAK."""
LITERAL = ("ERNIE-Image",)
"""Families whose host knows no weights: it reads brackets and numbers as words."""


@cache
def results(data: Path) -> dict[str, Any]:
    host, why = find("neo")
    if host is None:
        pytest.skip(why)
    (data / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [str(host.python), str(CASE), str(ROOT), str(data), *FORGE_FAMILIES]
    done = subprocess.run(command, cwd=host.folder, env=environment, capture_output=True, text=True, timeout=900, check=False)
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-2000:] + done.stderr[-2000:]
    return {result["family"]: result for result in map(json.loads, lines)}


@pytest.fixture(params=FORGE_FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.getbasetemp() / "neo-inside"
    data.mkdir(exist_ok=True)
    found: dict[str, Any] = results(data)[request.param]
    assert "error" not in found, found["error"]
    return found


@pytest.mark.parametrize("run", ["plain", "weighted", "references"])
def test_pictures_are_the_same_and_maps_are_the_equations(family: dict[str, Any], run: str) -> None:
    """A batch of two and one picture, not square, with guidance: Eq. 6 in float64 from noted queries and keys, both sides."""
    if run not in family:
        assert run == "references"
        return
    found = family[run]
    assert not found["failure"]
    if run == "weighted" and family["family"] == "Wan":
        assert found["words"] == ["a"], "of a text in parts, the host's encoder hears the first"
        return
    assert found["same"] and found["finite"] and found["put back"] and not found["alike"]
    assert found["worst"] < 1e-5
    assert found["spread"] > 1e-3, "a flat map proves nothing"
    assert found["negative"][0] == "blue"
    literal = run == "weighted" and family["family"] in LITERAL
    assert found["words"][:2] == (["a", "("] if literal else ["a", "red"])
    note_checked("neo", family["family"])


@pytest.mark.parametrize("run", ["concepts", "concepts beside references"])
def test_concepts_are_their_formula_or_refused_by_name(family: dict[str, Any], run: str) -> None:
    """ConceptAttention in float64 from the weights, maps and presence; the picture and the words' maps as without."""
    if run not in family:
        assert run != "concepts"
        return
    found = family[run]
    assert not found["failure"] and found["same"] and found["words"] and not found["left"]
    if family["family"] not in FORGE_CONCEPT_FAMILIES:
        (why,) = found["refused"]
        assert "they are not read in this host" in why and ", ".join(FORGE_CONCEPT_FAMILIES) in why
        assert not any(found["concepts"])
        return
    assert not found["refused"] and all(one == ["lamp", "sky"] for one in found["concepts"])
    assert found["worst"] < 3e-5, "float32 against float64; by the number of threads, up to 1.1e-5 was seen"
    assert found["spread"] > 2e-3, "a flat map proves nothing"


def test_a_text_that_another_changes_ends_concepts_and_not_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.getbasetemp() / "neo-inside"
    data.mkdir(exist_ok=True)
    found = results(data)["Qwen-Image"]["rewritten"]
    assert found["same"] and found["words"] == ["a", "red", "house"]
    assert "something changes the text between the model's blocks" in found["refused"][0]


def test_break_is_read_as_the_model_hears_it(family: dict[str, Any]) -> None:
    found = family["break"]
    if family["family"] in ONE_PART:
        assert "one part only" in found["failure"]
    else:
        assert "BREAK" in found["words"]


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The running host with this repository as its extension and a reduced Z-Image in the place of a checkpoint."""
    host, why = find("neo")
    if host is None:
        pytest.skip(why)
    data = tmp_path_factory.mktemp("neo-z-image")
    (data / "models" / "Stable-diffusion").mkdir(parents=True)
    own = data / "extensions" / "reduced"
    (own / "scripts").mkdir(parents=True)
    shutil.copy(CASE.with_name("models.py"), own)
    shutil.copy(CASE.with_name("loaded.py"), own / "scripts")
    witness = data / "extensions" / "witness" / "scripts"
    witness.mkdir(parents=True)
    shutil.copy(WITNESS, witness / "witness.py")
    server = Server(host, data)
    try:
        yield Live(server.wait())
    finally:
        server.stop()


def test_a_transformer_is_recorded_over_the_hosts_api(z_image: Live) -> None:
    asked: dict[str, Any] = {
        "prompt": "a red house",
        "negative_prompt": "fog",
        "width": 192,
        "height": 128,
        "batch_size": 2,
        "cfg_scale": 3,
    }
    plain = z_image.make(**asked)
    with_maps = z_image.make(lens={"negative": True, "overlays": True}, **asked)
    assert with_maps.note == ""
    assert all(np.array_equal(a, b) for a, b in zip(plain.images[:2], with_maps.images[:2], strict=True))
    assert len(with_maps.images) > len(plain.images), "an overlay of each word stands behind the pictures"
    assert [maps.words for maps in with_maps.maps] == [["a", "red", "house"]] * 2
    assert all(maps.negative.words == ["fog"] for maps in with_maps.maps)


def test_concepts_of_a_transformer_over_the_hosts_api(z_image: Live) -> None:
    asked: dict[str, Any] = {"prompt": "a red house", "width": 128, "height": 64}
    plain = z_image.make(**asked)
    made = z_image.make(lens={"concepts": "sky"}, **asked)
    assert made.note == "" and np.array_equal(plain.images[0], made.images[0])
    assert made.maps[0].words == ["a", "red", "house"] and made.maps[0].concepts == ["sky"]
    assert 0 <= made.maps[0].presence("sky").score <= 1
