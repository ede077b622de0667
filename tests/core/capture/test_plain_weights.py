"""Which projections make the same keys of the same text until their weights are others."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from daam_core.capture.plain_weights import plain_weights


class Linear(nn.Linear):
    """As ComfyUI's."""

    comfy_cast_weights = False
    weight_function: ClassVar[list[Any]] = []
    bias_function: ClassVar[list[Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


Linear.__module__, Linear.__qualname__ = "comfy.ops", "disable_weight_init.Linear"


class CastLinear(Linear):
    comfy_cast_weights = True


CastLinear.__module__, CastLinear.__qualname__ = "comfy.ops", "manual_cast.Linear"


@pytest.mark.parametrize("kind", [nn.Linear, Linear])
def test_a_weight_is_the_same_until_it_is_exchanged_or_written_into(kind: type[nn.Linear]) -> None:
    layer = kind(4, 4)
    before = plain_weights(layer)
    assert before is not None and plain_weights(layer) == before
    with torch.no_grad():
        layer.weight.mul_(2)
    written = plain_weights(layer)
    assert written != before
    kept = layer.weight
    layer.weight = nn.Parameter(kept.detach().clone())
    assert plain_weights(layer) not in (before, written, None)


@pytest.mark.parametrize("name", ["weight_function", "bias_function", "comfy_cast_weights"])
def test_comfyuis_layer_with_a_patch_or_a_cast_is_not_plain(name: str) -> None:
    layer = Linear(4, 4)
    setattr(layer, name, [lambda weight: weight] if name.endswith("function") else True)
    assert plain_weights(layer) is None


def test_other_layers_are_not_plain() -> None:
    class Own(nn.Linear):
        pass

    hooked, replaced = nn.Linear(4, 4), Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    assert all(plain_weights(layer) is None for layer in (Own(4, 4), CastLinear(4, 4), hooked, replaced, nn.Identity()))
