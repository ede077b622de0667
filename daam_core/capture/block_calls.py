"""One call of a block of a joint model: what it was given, the same with other tokens, and the proof that it is read right."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from .alike import alike
from .attention_call import AttentionCall
from .block_arguments import Attend, of_rows
from .comfyui_streams import BlockStream


@dataclass(eq=False)
class BlockCall:
    """A block that runs.

    Attributes:
        module, given: itself, and its arguments by name.
        number: which one.
        text: `[1, tokens, dim]` of the first row, where it is to be proved.
        expected: what that text becomes behind the block.
        attended: whether its attention is over.
    """

    module: nn.Module
    given: dict[str, Any]
    number: int
    text: Tensor | None = None
    expected: Tensor | None = None
    attended: bool = False

    def with_tokens(
        self,
        kind: BlockStream,
        tokens: Tensor,
        rotation: Tensor | None,
        axis: int,
        index: Tensor,
        places: tuple[int, bool],
        batch: int,
    ) -> dict[str, Any]:
        """Its arguments with other tokens in place of the text, and one token of the picture beside them.

        Args:
            tokens: `[rows, tokens, dim]`.
            rotation: what these are turned by, of one row, None where nothing is.
            axis: of it, which counts tokens.
            index: which rows of the batch these are.
            places: where the picture's tokens begin, and whether the text comes first.
            batch: rows of the model's batch.
        """
        picture, text_first = places
        replaced: dict[str, Any] = dict.fromkeys(kind.without)
        replaced[kind.text] = tokens.clone()  # some blocks write into what they are given
        if kind.picture:
            replaced[kind.picture] = self.given[kind.picture][:, :1][index]
        if rotation is not None:
            place = self.given[kind.rotation].narrow(axis, picture, 1)
            beside_text = [of_rows(place, index, batch)] if kind.picture else []
            turned = rotation.expand(beside_text[0].shape[0] if beside_text else 1, *rotation.shape[1:])
            order = [turned, *beside_text] if text_first else [*beside_text, turned]
            replaced[kind.rotation] = torch.cat(order, axis)
        given = {
            name: replaced[name] if name in replaced else of_rows(value, index, batch) for name, value in self.given.items()
        }
        return {**given, kind.text: replaced[kind.text]}

    def proving(self, a: AttentionCall, row: int, places: slice, picture: slice) -> Attend:
        """Attends with the keys and values of the block's own call, and holds those of its text against them.

        Args:
            a: that call, its heads apart.
            row: of the batch.
            places: the text's keys.
            picture: the picture's.

        Raises:
            UnsupportedModel: something masks the picture's keys; and, of what is given back, keys or values of the text are
                not the block's.
        """
        assert a.v is not None
        keys, values = a.k[row : row + 1], a.v[row : row + 1]
        bias = None if a.bias is None else a.bias[row if len(a.bias) > 1 else 0][None]
        if bias is not None and bias.shape[-1] == a.keys and bool(bias[..., picture].any()):
            raise UnsupportedModel("something puts a mask on the picture's keys")
        reason = f"block {self.number} attends to keys and values that are not those of the text it is given"

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            require_alike(k, keys[:, :, places], reason)
            require_alike(v, values[:, :, places], reason)
            own = None if bias is None else (bias[:, :, places] if bias.shape[2] > 1 else bias).to(q.dtype)
            read: Tensor = torch._C._nn.scaled_dot_product_attention(q, keys, values, attn_mask=own, scale=a.scale)
            return read

        return attend


def named_arguments(kind: BlockStream, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a block's call by their names."""
    if kind.positional:
        return {**dict(zip(kind.positional, args, strict=True)), **kwargs}
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
    return dict(list(bound.items())[1:])


def require_alike(found: Tensor, wanted: Tensor | None, reason: str) -> None:
    """Two tensors differ by no more than rounding.

    Raises:
        UnsupportedModel: they do, for this reason.
    """
    if wanted is None or not alike(found, wanted):
        raise UnsupportedModel(f"{reason}, so a concept cannot be read as a word")
