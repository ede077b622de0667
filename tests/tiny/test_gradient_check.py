"""A gradient that does not arrive, or points elsewhere, is named."""

from __future__ import annotations

import torch

from daam_core.tiny.gradient_check import gradients, lost_gradients


def test_gradients_are_those_of_the_loss() -> None:
    layer = torch.nn.Linear(2, 1, bias=True).double()
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    layer.weight.grad = torch.ones_like(layer.weight)  # of an earlier step: takes no part
    found = gradients(layer, lambda: layer(x).sum())
    torch.testing.assert_close(found["weight"], torch.tensor([[4.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(found["bias"], torch.tensor([2.0], dtype=torch.float64))
    assert layer.weight.grad is None


def test_a_parameter_that_is_not_used_has_a_zero_gradient_and_is_lost() -> None:
    pair = torch.nn.ModuleDict({"used": torch.nn.Linear(1, 1, bias=False), "idle": torch.nn.Linear(1, 1, bias=False)})
    found = gradients(pair, lambda: pair["used"](torch.ones(1, 1)).sum())
    assert not found["idle.weight"].any()
    assert lost_gradients(found, found) == ["idle.weight"]


def test_noise_of_rounding_passes_and_what_is_wrong_does_not() -> None:
    torch.manual_seed(0)
    right = {name: torch.randn(50) for name in ("rounded", "turned", "halved", "infinite", "other")}
    other = {
        "rounded": right["rounded"] * 1.1 + 0.1 * torch.randn(50),
        "turned": -right["turned"],
        "halved": 0.4 * right["halved"],
        "infinite": torch.full((50,), torch.inf),
        "other": torch.randn(50),
    }
    assert lost_gradients(right, other) == ["turned", "halved", "infinite", "other"]
