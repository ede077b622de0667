"""Scores of a mask are those of scikit-learn, and edge cases mean what the report says they mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from daam_core.errors import BadArgument
from daam_core.masks import metrics as overlap
from daam_core.studies import baselines
from daam_core.studies.scoring import no_scores, scores

SIZE = (12, 17)
EMPTY, FULL = torch.zeros(SIZE, dtype=torch.bool), torch.ones(SIZE, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learn_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask, truth = rng.random(SIZE) < rng.random(), rng.random(SIZE) < rng.random()
    found = scores(torch.from_numpy(mask), torch.from_numpy(truth))
    flat = truth.ravel(), mask.ravel()
    assert found["iou"] == pytest.approx(jaccard_score(*flat), abs=1e-6)
    assert found["dice"] == pytest.approx(f1_score(*flat), abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(*flat), abs=1e-6)
    assert found["area"] == pytest.approx(mask.mean(), abs=1e-6)
    assert found["truth_area"] == pytest.approx(truth.mean(), abs=1e-6)


def test_scores_are_the_library_s_own_measures() -> None:
    rng = np.random.default_rng(9)
    mask, truth = torch.from_numpy(rng.random(SIZE) < 0.3), torch.from_numpy(rng.random(SIZE) < 0.5)
    found = scores(mask, truth)
    for name, measure in (("iou", overlap.iou), ("dice", overlap.dice), ("pixel_accuracy", overlap.pixel_accuracy)):
        assert found[name] == pytest.approx(float(measure(mask, truth)), abs=1e-6)


@pytest.mark.parametrize("other", [torch.zeros(3, 4), torch.zeros(12, 17), torch.zeros(12, 16, dtype=torch.bool)])
def test_only_masks_of_one_size_are_compared(other: torch.Tensor) -> None:
    with pytest.raises(BadArgument, match=r"bool \[H, W\]"):
        scores(EMPTY, other)


def test_nothing_predicted_of_something_is_zero() -> None:
    half = FULL.clone()
    half[:, 5:] = False
    assert scores(EMPTY, half) == {
        "iou": 0.0,
        "dice": 0.0,
        "pixel_accuracy": round(12 / 17, 6),
        "area": 0.0,
        "truth_area": round(5 / 17, 6),
    }
    assert scores(half, EMPTY)["iou"] == 0.0


def test_nothing_of_nothing_is_no_score() -> None:
    found = scores(EMPTY, EMPTY)
    assert (found["iou"], found["dice"], found["pixel_accuracy"]) == (None, None, 1.0)
    assert found.keys() == no_scores().keys()


def test_everything() -> None:
    assert scores(FULL, FULL) == {"iou": 1.0, "dice": 1.0, "pixel_accuracy": 1.0, "area": 1.0, "truth_area": 1.0}
    assert scores(FULL, EMPTY)["pixel_accuracy"] == 0.0


def test_blind_baselines() -> None:
    """They look at nothing, are the same every time, and cover what they say."""
    masks = baselines.blind((40, 60), "unit/house")
    assert masks[baselines.WHOLE].all()
    assert 0.45 < float(masks[baselines.RANDOM].float().mean()) < 0.55
    assert torch.equal(masks[baselines.RANDOM], baselines.random_pixels((40, 60), "unit/house"))
    assert not torch.equal(masks[baselines.RANDOM], baselines.random_pixels((40, 60), "unit/tree"))
    box = masks[baselines.BOX]
    assert int(box.sum()) == 20 * 30
    assert box[10:30, 15:45].all()
    assert baselines.centre_box((1, 1)).all()
