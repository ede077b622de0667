"""Outlines in COCO's form: against pycocotools, and hostile ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daam_core.errors import BadArgument
from daam_core.studies.coco_outlines import mask_of, runs_of

coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra `benchmark`")


@pytest.mark.parametrize("seed", range(4))
def test_masks_there_and_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((23, 31)) < (0.1, 0.5, 0.9, 0.0)[seed]
    runs = {"size": [23, 31], "counts": runs_of(mask)}
    assert (mask_of(runs, (23, 31)) == mask).all()
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco.frPyObjects(runs, 23, 31)["counts"] == packed["counts"]
    assert (mask_of({"size": [23, 31], "counts": packed["counts"].decode()}, (23, 31)) == mask).all()
    assert (mask_of({"size": [2, 2], "counts": [0, 4]}, (2, 2))).all()


def test_polygons_are_filled_by_coco_s_rule() -> None:
    square = [[10.0, 10.0, 30.0, 10.0, 30.0, 25.0, 10.0, 25.0]]
    mask = mask_of(square, (40, 50))
    assert mask.shape == (40, 50) and mask[12:24, 12:29].all() and not mask[:9].any() and not mask[:, 32:].any()
    assert (mask_of([[10, 10, 30, 10, 30, 25, 10, 25]], (40, 50)) == mask).all()


@pytest.mark.parametrize(
    "outline",
    [
        7, None, [], {}, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["a"] * 6], [[float("nan")] * 6], [[1e12] * 6], [[True] * 6],
        {"size": [9, 9], "counts": [81]}, {"size": [8, 8], "counts": [0, 65]}, {"size": [8, 8], "counts": [-1, 65]},
        {"size": [8, 8], "counts": [64.0]}, {"size": [8, 8], "counts": []}, {"size": [8, 8], "counts": "o"},
        {"size": [8, 8], "counts": "~~~"}, {"size": [8, 8], "counts": "P" * 100}, {"size": [8, 8], "counts": "Ä"},
        {"size": [8, 8]},
    ],
)  # fmt: skip
def test_hostile_outlines_are_refused(outline: Any) -> None:
    with pytest.raises(BadArgument, match="outline"):
        mask_of(outline, (8, 8))
