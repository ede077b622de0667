"""A second computation of the attention of a UNet, head by head in float64, for every row of every batch; none of our code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Forward:
    """One forward of the UNet: the text of each row, and by positions n `[rows, n, keys]` summed over heads and layers."""

    texts: Tensor
    sums: dict[int, Tensor] = field(default_factory=dict)


class Witness:
    """Reads what `attn2` of a pipeline's UNet gives out, by PyTorch's own hooks; what it is read from is not touched.

    Args:
        weights: project the layer's inputs by its weights once more, instead of putting hooks on its projections.
        behind: how many keys each layer has behind those of the text.
        but: layers with this in their name are left out.
    """

    def __init__(self, unet: Any, weights: bool = False, behind: int = 0, but: str = "?") -> None:
        self.forwards: list[Forward] = []
        self._behind = behind
        self._q: dict[int, Tensor] = {}
        self._k: dict[int, Tensor] = {}
        unet.register_forward_pre_hook(self._begin, with_kwargs=True)
        for name, module in unet.named_modules():
            if but in name:
                continue
            if name.endswith("attn2") and weights:
                module.register_forward_pre_hook(self._project, with_kwargs=True)
                module.register_forward_hook(self._add)
            elif name.endswith("attn2"):
                module.to_q.register_forward_hook(lambda m, a, out, attn=module: self.q(attn, out))
                module.to_k.register_forward_hook(lambda m, a, out, attn=module: self.k(attn, out))
                module.register_forward_hook(self._add)

    def _project(self, attn: Any, args: Any, kwargs: dict[str, Any]) -> None:
        context = kwargs["encoder_hidden_states"]
        self.q(attn, args[0].double() @ attn.to_q.weight.double().T)
        self.k(attn, context.double() @ attn.to_k.weight.double().T)

    def q(self, attn: Any, queries: Tensor) -> None:
        self._q[id(attn)] = queries

    def k(self, attn: Any, keys: Tensor) -> None:
        self._k[id(attn)] = keys

    def _begin(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.forwards.append(Forward(kwargs["encoder_hidden_states"].detach().clone()))
        mask = kwargs.get("encoder_attention_mask")
        self._mask = None if mask is None else (1 - mask.double())[:, None, None] * -10000

    def _add(self, attn: Any, _args: Any, _output: Any) -> None:
        if id(attn) not in self._q:
            return  # a cache answered for it
        q, k = (x.pop(id(attn)).detach().double().unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (self._q, self._k))
        if k.shape[2] != self.forwards[-1].texts.shape[1] + self._behind:
            return  # attention between the frames of a video
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        scores = scores if self._mask is None else scores + self._mask
        p = (scores.exp() / scores.exp().sum(-1, keepdim=True)).sum(1)
        sums = self.forwards[-1].sums
        sums[p.shape[1]] = sums[p.shape[1]] + p if p.shape[1] in sums else p

    def of(self, text: Tensor, only: slice = slice(None)) -> dict[int, Tensor]:
        """By positions n `[n, keys]`: the first row of each forward whose text is `text`, added up; forwards without one
        are left out."""
        total: dict[int, Tensor] = {}
        for forward in self.forwards[only]:
            rows = [i for i, own in enumerate(forward.texts) if own.shape == text.shape and torch.equal(own, text)]
            for n, sums in forward.sums.items() if rows else ():
                total[n] = total[n] + sums[rows[0]] if n in total else sums[rows[0]]
        return total


def assert_same(image: Any, true: dict[int, Tensor], columns: Any = None) -> None:
    """The maps of one side of a picture are those columns of a witness's sums; by default the columns of its own prompt."""
    assert {h * w for h, w in image.sums} == set(true)
    tokens = image.prompt.tokens
    columns = [token.column for token in tokens] if columns is None else columns
    assert columns
    for (h, w), channels in image.sums.items():
        expected = true[h * w][:, columns].T
        assert (channels[1:-2].flatten(1) - expected).abs().max() <= 1e-5 * expected.abs().max()
