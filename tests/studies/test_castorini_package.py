"""`aggregation="castorini"` on the embedded model: the numbers of the package `daam` of PyPI, prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from daam_core import load_tiny
from daam_core.cli.parser import USER_ERROR, main
from daam_core.studies import castorini_package as package
from daam_core.studies.model_runner import ModelRunner

PROMPTS = ("a red house and a green tree", "a purple sun at night", "a yellow car next to a pink star in snow")


@pytest.fixture(scope="module")
def daam() -> Any:
    return pytest.importorskip(
        "daam",
        reason="castorini's package is not installed here (benchmarks/README.md says how); its rule is checked in tests/core",
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_maps_equal_the_package_s(daam: Any, prompt: str) -> None:
    sample = ModelRunner(aggregation="castorini", how={"num_inference_steps": 4}).picture(prompt, 3)
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    with daam.trace(pipe) as tracer:
        picture = pipe(prompt, num_inference_steps=4, generator=torch.Generator().manual_seed(3)).images[0]
        theirs = tracer.compute_global_heat_map(factors=package.FACTORS)
    assert np.abs(np.asarray(picture).astype(int) - sample.image).max() <= 2  # its own attention rounds otherwise
    for word in sample.maps.content_words:
        expected = theirs.compute_word_heat_map(word).heatmap
        torch.testing.assert_close(sample.maps.heat_map(word), expected, rtol=0, atol=1e-5 * float(expected.max()))


def test_study_scores_the_package_on_the_same_pictures(daam: Any, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red house\n", encoding="utf-8")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--steps", "4", "--judge-scenes", "1", "--device", "cpu"]
    assert main(["study", "segmentation", "--with-package", "--out", str(tmp_path / "out"), *arguments]) == 0
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    theirs = rows[rows["mask"] == package.NAME].set_index("tau")["iou"]
    ours = rows[rows["mask"] == "castorini"].set_index("tau")["iou"]
    assert len(theirs) == 9
    assert (theirs - ours).abs().max() < 2e-3  # a pixel at the level may round to either side


def test_without_the_package_one_sentence_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "daam", None)
    assert main(["study", "segmentation", "--with-package", "--out", str(tmp_path)]) == USER_ERROR
    assert "benchmarks/README.md" in capsys.readouterr().err
