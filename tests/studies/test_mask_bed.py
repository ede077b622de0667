"""The bed of masks: what each kind promises of its scenes, and that they can be recorded and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from daam_core.masks.color_model import lab
from daam_core.masks.edge_smoothing import roughness
from daam_core.studies.combinations import Workbench, combinations, levels_of
from daam_core.studies.cross_validation import CHOOSING, REPORTING, half_of
from daam_core.studies.ground_truth import truth_units
from daam_core.studies.mask_bed_scenes import KINDS, bed_scene, natural_noise
from daam_core.studies.mask_study import MaskStudy
from daam_core.studies.model_runner import ModelRunner
from daam_core.studies.report import Table
from daam_core.studies.study import Found
from daam_core.tiny.shapes import NOUNS

from .fakes import options


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_the_same_on_every_call_and_names_what_it_shows(kind: str) -> None:
    first, again, other = bed_scene(kind, 3), bed_scene(kind, 3), bed_scene(kind, 4)
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert set(first.masks) <= set(NOUNS)
    assert all(f" {noun}" in first.caption for noun in first.masks)
    wide = bed_scene(kind, 3, (96, 200))
    assert wide.image.shape == (96, 200, 3)
    assert all(mask.shape == (96, 200) and mask.any() for mask in wide.masks.values())


def test_masks_are_exact() -> None:
    """On a flat ground a pixel differs from the ground where, and only where, the object covers some of it."""
    for number in range(6):
        scene = bed_scene("flat", number)
        (mask,) = scene.masks.values()
        ground = scene.image[0, 0]
        assert (np.abs(scene.image[mask].astype(int) - ground).max(-1) > 0).all()
        assert (scene.image[~mask] == ground).all(-1).mean() > 0.95


def test_kinds_are_what_they_are_called() -> None:
    sizes = [mask.mean() for n in range(12) for mask in bed_scene("small", n).masks.values()]
    assert min(sizes) >= 0.009
    assert max(sizes) <= 0.03
    for kind in ("photo-like", "textured"):
        assert all(roughness(lab(bed_scene(kind, n).image)) > 5 for n in range(4))
    assert roughness(lab(bed_scene("flat", 0).image)) == 0
    for n in range(6):
        (mask,) = bed_scene("cut by the border", n).masks.values()
        assert mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        first, second = bed_scene("touching one colour", n).masks.values()
        grown = np.zeros_like(first)
        ys, xs = np.nonzero(first)
        for dy in range(-8, 9):
            for dx in range(-8, 9):
                grown[np.clip(ys + dy, 0, 127), np.clip(xs + dx, 0, 127)] = True
        assert (grown & second).any()
        assert not (first & second).any()


def test_noise_has_the_spectrum_of_photographs() -> None:
    """Amplitude falls as 1 / f: a decade of frequency costs a decade of amplitude."""
    values = natural_noise(np.random.default_rng(0), (256, 256))
    amplitude = np.abs(np.fft.fft2(values))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    low, high = (amplitude[(frequency > f / 1.2) & (frequency < 1.2 * f)].mean() for f in (0.03, 0.3))
    assert low / high == pytest.approx(10, rel=0.15)


def test_every_combination_works_where_no_grid_divides_another(tmp_path: Path) -> None:
    """264 x 320 pixels: maps of 33 x 40, self-attention of 17 x 20 positions."""
    scene = bed_scene("flat", 1, (264, 320))
    maps = ModelRunner().denoised(scene.image, scene.caption, 0, levels=(500,)).maps
    (noun,) = scene.masks
    bench = Workbench.of(maps, noun, (264, 320))
    for how in combinations():
        mask = bench.mask(how, levels_of(how)[0])
        assert mask is None or mask.shape == (264, 320), how.name
    assert any(how.walks for how in combinations())


def test_units_of_the_bed_are_scored_on_both_halves(tmp_path: Path) -> None:
    asked = options(tmp_path, truth="bed", words=None, limit=2, size=(64, 64))
    units = truth_units(asked)
    assert [unit.content["split"] for unit in units] == [kind for kind in KINDS for _ in range(2)]
    assert {half_of(unit.content["number"]) for unit in units} == {CHOOSING, REPORTING}
    runner = ModelRunner()
    rows = [row for unit in units[:2] for row in MaskStudy().measure(unit, runner, asked).rows]
    report = MaskStudy().conclude(Found(pd.DataFrame([{"unit": r["prompt"], **r} for r in rows]), {}, ()), asked)
    tables = {part.title: part.frame for part in report.parts if isinstance(part, Table)}
    ceiling = tables["The default mask and the ceiling of all candidates"].iloc[0]
    assert float(ceiling["best of all on each mask"]) >= float(ceiling["default mask"]) > 0.5
