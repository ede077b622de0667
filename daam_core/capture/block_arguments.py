"""What a block of a joint model is given in place of its own: rows of its arguments, and answers to its attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .attention_call import comfyui_output, from_comfyui

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v `[rows, heads, tokens, d]` of tokens -> what they read, `[rows, heads, tokens, d]`."""


class Answers:
    """What a block attends with while other tokens go through it: ComfyUI's `optimized_attention_override`.

    Args:
        own: where the tokens stand among the queries.
        queries: how many there are.
        attend: what the tokens read.
    """

    def __init__(self, own: slice, queries: int, attend: Attend) -> None:
        self._own, self._queries, self._attend = own, queries, attend
        self.asked = False

    def __call__(self, _function: Any, *args: Any, **kwargs: Any) -> Tensor:
        a = from_comfyui(args, kwargs)
        a = comfyui_output(a, args, kwargs, a.q).heads_apart()
        out = torch.zeros_like(a.q)
        if not self.asked and a.queries == a.keys == self._queries:
            self.asked = True
            assert a.v is not None
            k, v = (x.repeat_interleave(a.q.shape[1] // x.shape[1], 1) for x in (a.k, a.v))
            out[:, :, self._own] = self._attend(a.q[:, :, self._own], k[:, :, self._own], v[:, :, self._own]).to(out.dtype)
        return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


def token_axis(positions: Tensor, tokens: int) -> int:
    """Along which axis of positions tokens stand: `[rows, 1, tokens, …]` or `[rows, tokens, 1, …]`."""
    for axis in (2, 1):
        if positions.dim() > 3 and positions.shape[axis] == tokens and positions.shape[3 - axis] == 1:
            return axis
    raise UnsupportedModel(f"the positions of {tokens} tokens have the shape {tuple(positions.shape)}, which is not known")


def of_rows(value: Any, index: Tensor, batch: int) -> Any:
    """The rows of an argument of a block: of tensors that have one for each of the batch, and what holds such."""
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.dim() > 1 and len(value) == batch else value
    if isinstance(value, (tuple, list)):
        return type(value)(of_rows(one, index, batch) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: of_rows(getattr(value, name), index, batch) for name in names})
    return value
