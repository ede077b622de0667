"""Ablation: each variant is the part of Eq. 6 that it is called after, and the parts add up to the whole."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from daam_core.cli import main
from daam_core.studies.ablation_variants import (
    FAMILIES,
    equal_resolutions,
    geometric_mean,
    interpolated,
    native,
    step_ranges,
    variants,
)
from daam_core.studies.model_runner import ModelRunner, Sample

SIZE = (128, 128)


@pytest.fixture(scope="module")
def sample() -> Sample:
    runner = ModelRunner(how={"num_inference_steps": 5})
    return runner.picture("a red house and a green tree", 5, keep=("layers", "steps", "heads"))


def found(sample: Sample) -> dict[tuple[str, str], torch.Tensor]:
    assert sample.castorini is not None
    return {(family, name): heat for family, name, heat in variants(sample.paper, sample.castorini, "house", SIZE)}


@pytest.mark.parametrize("family", ["resolution", "block", "layer", "steps", "head"])
def test_parts_add_up_to_the_whole(sample: Sample, family: str) -> None:
    """Nothing of the attention is left out or counted twice (detail is kept in float16: 1e-3)."""
    whole = found(sample)["all", "Eq. 6"]
    parts = [heat for (kind, name), heat in found(sample).items() if kind == family and "half" not in name]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=0, atol=1e-3 * float(whole.max()))
    assert len(parts) >= 3


def test_every_family_is_there(sample: Sample) -> None:
    assert {family for family, _ in found(sample)} == set(FAMILIES)


def test_interpolations_are_torch_s(sample: Sample) -> None:
    levels = native(sample.paper, "house")
    assert {grid: tuple(level.shape) for grid, level in levels.items()} == {grid: grid for grid in sample.paper.sums}
    word = sample.paper.prompt.find("house")
    for grid, level in levels.items():
        torch.testing.assert_close(level, sample.paper.sums[grid][list(word.channels)].sum(0))
    bilinear = sum(F.interpolate(x[None, None], SIZE, mode="bilinear")[0, 0] for x in levels.values())
    torch.testing.assert_close(interpolated(sample.paper, "house", SIZE, "bilinear"), bilinear)
    torch.testing.assert_close(
        interpolated(sample.paper, "house", SIZE, "bicubic"), sample.paper.heat_map("house", SIZE), rtol=0, atol=1e-4
    )
    nearest = interpolated(sample.paper, "house", SIZE, "nearest")
    assert float((nearest[:8, :8] - nearest[0, 0]).abs().max()) == 0


def test_aggregations_written_out(sample: Sample) -> None:
    heats = [sample.paper.select(grids=[grid]).heat_map("house", SIZE) for grid in sample.paper.sums]
    stretched = [(h - h.min()) / (h.max() - h.min()) for h in heats]
    torch.testing.assert_close(equal_resolutions(sample.paper, "house", SIZE), torch.stack(stretched).sum(0))
    product = stretched[0] * stretched[1] * stretched[2]
    torch.testing.assert_close(geometric_mean(sample.paper, "house", SIZE), product ** (1 / 3), rtol=1e-4, atol=1e-5)
    steps = [sample.paper.select(steps=[j]).heat_map("house", SIZE) for j in range(5)]
    torch.testing.assert_close(found(sample)["aggregation", "maximum of steps"], torch.stack(steps).max(0).values)
    late = sum((j + 1) ** 2 * steps[j] for j in range(5))
    heat = found(sample)["aggregation", "late steps (j²)"]
    torch.testing.assert_close(heat, late, rtol=0, atol=1e-3 * float(heat.max()))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 30])
def test_quarters_are_disjoint_and_whole(steps: int) -> None:
    ranges = step_ranges(steps)
    quarters = [number for name, numbers in ranges.items() if "quarter" in name for number in numbers]
    halves = [number for name, numbers in ranges.items() if "half" in name for number in numbers]
    assert quarters == halves == list(range(steps))


def test_a_small_run(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red house\na yellow sun\n", encoding="utf-8")
    arguments = ["--prompts", str(tmp_path / "prompts.txt"), "--steps", "4", "--device", "cpu"]
    assert main(["study", "ablation", "--out", str(tmp_path / "out"), *arguments]) == 0
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert set(rows["family"]) == set(FAMILIES)
    assert rows["iou"].between(0, 1).all()
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for family in FAMILIES[1:]:
        assert f"### By {family}" in text
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 10_000
