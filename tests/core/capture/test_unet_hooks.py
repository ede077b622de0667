"""Which layers a UNet has and where they stand, in the naming of diffusers and of ldm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from daam_core.capture.unet_forward import UNetInputs
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.errors import UnsupportedModel


class _Attention(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.heads = 2
        self.to_q, self.to_k = nn.Linear(4, 4), nn.Linear(context, 4)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        q, k = self.to_q(x), self.to_k(x if context is None else context)
        return x + (q @ k.transpose(1, 2)).softmax(-1).sum(-1, keepdim=True)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = _Attention(4), _Attention(3)


class _Spatial(nn.Module):
    """A spatial transformer: positions of a picture in, the same out."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([_Block()])

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        hidden = x.flatten(2).transpose(1, 2)
        block: Any = self.transformer_blocks[0]
        hidden = block.attn2(block.attn1(hidden), context)
        return hidden.transpose(1, 2).reshape(x.shape)


class _Unet(nn.Module):
    def __init__(self, names: tuple[str, str, str]) -> None:
        super().__init__()
        self._order = names
        for name in names[::-1]:  # registered in another order than they run in
            self.add_module(name, nn.ModuleList([_Spatial()]))

    def forward(self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        for name in self._order:
            module: Any = getattr(self, name)
            sample = module[0](sample, encoder_hidden_states)
        return sample


class _Receiver:
    """Notes which layers attended."""

    def __init__(self, seen: list[tuple[int, tuple[int, int], bool]]) -> None:
        self.seen = seen

    def wants_forward(self) -> bool:
        return True

    def begin_forward(self, inputs: UNetInputs) -> bool:
        return True

    def planned(self) -> None:
        return None

    def on_attention(
        self, layer: int, grid: tuple[int, int], q: torch.Tensor, k: torch.Tensor, cross: bool, of_context: bool
    ) -> None:
        self.seen.append((layer, grid, cross))

    def end_forward(self, finished: bool) -> None:
        assert finished

    def fail(self, error: Exception) -> None:
        pytest.fail(str(error))


@pytest.mark.parametrize(
    "names", [("input_blocks", "middle_block", "output_blocks"), ("down_blocks", "mid_block", "up_blocks")]
)
def test_blocks_are_known_in_both_namings_and_in_the_order_they_run(names: tuple[str, str, str]) -> None:
    seen: list[tuple[int, tuple[int, int], bool]] = []
    unet = _Unet(names)
    hooks = UNetAttentionHooks(unet, _Receiver(seen), self_attention=True)
    x, context = torch.randn(1, 4, 2, 3), torch.randn(1, 5, 3)
    plain = unet(x, 0, context)
    with hooks:
        assert torch.equal(unet(x, 0, context), plain)
    assert [layer.block for layer in hooks.layers] == ["down", "down", "mid", "mid", "up", "up"]
    assert [layer.name.split(".")[0] for layer in hooks.layers[::2]] == list(names)
    assert seen == [(i, (2, 3), i % 2 == 1) for i in range(6)]
    seen.clear()
    unet(x, 0, context)
    assert seen == []


def test_a_model_without_cross_attention_is_named() -> None:
    with pytest.raises(UnsupportedModel, match="Linear has no cross-attention"):
        UNetAttentionHooks(nn.Linear(2, 2))
