"""Masks never contradict their own map: self-attention that says nothing is left out, and a simpler method is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from daam_core import masks
from daam_core.masks import methods
from daam_core.masks.methods import EQUATION_7, MASK_METHODS, MaskMethod, contradicts, misses
from daam_core.masks.metrics import iou
from daam_core.masks.propagate import propagated
from daam_core.studies.model_runner import ModelRunner

from .test_methods import GRID, HOUSE, exact, scene

POSITIONS = GRID[0] * GRID[1]


def nearly_even(ripple: float = 0.02) -> Tensor:
    """Self-attention of a layer that looks everywhere alike, as recorded at 256 px and more: `[n, n]`, rows of sum 1."""
    values = 1 + ripple * torch.rand(POSITIONS, POSITIONS, generator=torch.Generator().manual_seed(3))
    return values / values.sum(-1, keepdim=True)


def test_even_self_attention_leaves_nothing_of_a_map_and_is_refused() -> None:
    heat = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(0))
    assert propagated(heat, nearly_even(), GRID) is None
    assert propagated(heat, torch.full((POSITIONS, POSITIONS), 1 / POSITIONS), GRID) is None
    kept = propagated(heat, torch.eye(POSITIONS), GRID)
    assert kept is not None and torch.allclose(kept, heat)


def test_self_attention_that_moves_heat_elsewhere_is_refused() -> None:
    """A permutation keeps all contrast and leaves no resemblance."""
    heat = torch.rand(1, *GRID, generator=torch.Generator().manual_seed(0))
    elsewhere = torch.eye(POSITIONS)[torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(1))]
    assert propagated(heat, elsewhere, GRID) is None


def test_a_constant_map_has_nothing_to_lose() -> None:
    assert propagated(torch.ones(1, *GRID), nearly_even(), GRID) is not None


@pytest.mark.parametrize(("method", "simpler"), [("best", "late + figure + grabcut"), ("walk", "late + compete")])
def test_the_result_names_the_simpler_method(method: str, simpler: str) -> None:
    maps = scene().each_side(lambda side: dataclasses.replace(side, self_attention={GRID: nearly_even()}))
    without = scene().each_side(lambda side: dataclasses.replace(side, self_attention={}))
    found = maps.mask_result("house", method)
    assert found.method == simpler
    assert method in found.note and "self-attention" in found.note
    assert torch.equal(found.mask, maps.mask("house", method))
    assert iou(found.mask, exact(HOUSE)) > 0.75
    if method == "best":
        assert torch.equal(found.mask, without.mask("house"))


def test_a_method_that_does_as_asked_says_nothing() -> None:
    for method in MASK_METHODS:
        found = scene().mask_result("house", method)
        assert (found.method, found.note) == (method, "")
    assert scene(walk=False).mask_result("house").method == "best"


def test_a_mask_that_contradicts_its_map_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is at fault: a method that answers with the ground is not believed, and Eq. 7 is."""

    def ground(self: MaskMethod, inputs: methods.MaskInputs, tau: float = 0.4) -> Tensor:
        mask = masks.threshold(inputs.maps[0], tau)
        return mask if self == EQUATION_7 else ~mask

    monkeypatch.setattr(MaskMethod, "apply", ground)
    found = scene().mask_result("house")
    assert found.method == "threshold"
    assert "contradicted" in found.note
    assert iou(found.mask, exact(HOUSE)) > 0.75


def test_what_contradicts_a_map() -> None:
    heat = torch.zeros(10, 10)
    heat[:5] = 1
    mask = torch.zeros(10, 10, dtype=torch.bool)
    assert not contradicts(mask, heat)
    mask[2:7] = True
    assert not contradicts(mask, heat)  # three rows of five are hot
    assert contradicts(mask.roll(2, 0), heat)  # one row of five
    wide = torch.linspace(0.8, 1, 100).reshape(10, 10)
    wide[:2] = 0
    assert not contradicts(wide > 0.5, wide)  # most of the picture: half of it is cooler than the mean


@pytest.mark.parametrize("size", [(256, 256), (264, 320)])
def test_the_default_is_no_worse_than_the_plain_threshold_at_sizes_the_model_never_saw(size: tuple[int, int]) -> None:
    """On the model inside, against all that is not the picture's even ground."""
    runner = ModelRunner(how={"num_inference_steps": 6, "height": size[0], "width": size[1]})
    maps = runner.picture("a red house", 7).paper
    assert maps.picture is not None
    picture = torch.from_numpy(maps.picture.copy()).float()
    truth = (picture - picture[0, 0]).abs().amax(-1) > 40
    plain = iou(maps.mask("house", "threshold"), truth)
    assert plain > 0.5
    for method in ("best", "walk"):
        assert iou(maps.mask("house", method), truth) >= plain - 0.05, method


def test_crumbs_are_not_what_a_map_shows() -> None:
    heat = torch.zeros(10, 10)
    heat[:5] = 1
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[9, :5] = True
    assert not misses(mask, heat)  # five places where fifty are hot
    mask[9, 0] = False
    assert misses(mask, heat)
    assert misses(torch.zeros_like(mask), heat)
    assert not misses(torch.zeros_like(mask), torch.ones(10, 10))  # a map without contrast shows nothing


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (320, 192), (512, 512)])
@pytest.mark.parametrize("share", [0.0, 0.05])
def test_figure_and_ground_that_leave_crumbs_give_way(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], share: float
) -> None:
    heat = torch.full((1, 16, 16), 0.01)
    heat[:, 4:12, 4:12] = 1.0
    picture = np.full((*size, 3), 128, np.uint8)
    inputs = methods.MaskInputs([heat], heat, None, picture, size)
    crumbs = torch.zeros(size, dtype=torch.bool)
    rows, columns = round(share**0.5 * size[0] / 2), round(share**0.5 * size[1] / 2)
    crumbs[size[0] // 2 :, size[1] // 2 :][:rows, :columns] = True  # inside the heat, which is a quarter of the picture
    monkeypatch.setattr(methods, "figure_mask", lambda *_, **__: crumbs)
    found = methods.make_mask(inputs, "best")
    assert found.method == "threshold" and "contradicted" in found.note
    assert torch.equal(found.mask, masks.threshold(inputs.maps[0], 0.4))
