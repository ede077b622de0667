"""Eq. 6 written out, from queries and keys that were noted inside a host: nothing of `daam_core` is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Call = dict[str, Any]


def word_sum(calls: Sequence[Call], places: int, columns: Callable[[int, Call], dict[int, list[int]]]) -> Tensor:
    """The attention of one word summed over heads, layers and calls, at one resolution: float32 `[places]`.

    Args:
        calls: of the UNet, in order.
        places: h * w of the resolution.
        columns: for a call's number and the call, the context columns of the word in each row that counts.
    """
    total = torch.zeros(places)
    for number, call in enumerate(calls):
        for row, own in columns(number, call).items():
            for layer in call["layers"]:
                q, k = layer["q"][row].float(), layer["k"][row].float()
                if q.shape[0] != places:
                    continue
                heads = layer["heads"]
                q, k = (x.reshape(x.shape[0], heads, -1).transpose(0, 1) for x in (q, k))
                shares = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
                total += shares[:, :, own].sum((0, 2))
    return total
