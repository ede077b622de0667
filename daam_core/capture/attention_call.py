"""One call of an attention function, of PyTorch's, of diffusers' or of ComfyUI's: q, k, scale, bias, log-sum-exp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from .parallelism import of_one_device


@dataclass(eq=False, slots=True)
class AttentionCall:
    """What one attention is computed from: softmax over the keys of q . k * scale + bias.

    Attributes:
        q: `[batch, heads, n, d]`, a view of what the model gave; `[batch, n, heads * d]` where `packed_heads` is set.
        k: `[batch, key heads, keys, d]`; with grouped keys, several query heads read one key head. Or as q,
            `[batch, keys, heads * d]`.
        scale: factor on the scores.
        bias: what is added to the scores, broadcastable to `[batch, heads, n, keys]`; None is nothing.
        lse: float32 `[batch, heads, n]`, log of the sum of exp(scores) over all keys, where the kernel gave it away.
        packed_heads: how many heads lie side by side in the last axis of q and k, 0 where the heads are an axis.
        v: the values, shaped as k, where what the attention gives out is read.
        output: what the attention gave out, `[batch, heads, n, d]` or `[batch, n, heads * d]`, where that is read.
    """

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None
    lse: Tensor | None = None
    packed_heads: int = 0
    v: Tensor | None = None
    output: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.q.shape[0]

    @property
    def heads(self) -> int:
        return self.packed_heads or self.q.shape[1]

    @property
    def queries(self) -> int:
        return self.q.shape[-2]

    @property
    def keys(self) -> int:
        return self.k.shape[-2]

    @property
    def scores(self) -> int:
        """How many scores its softmax is over, in all."""
        q = self.q
        return (self.packed_heads or 1) * q.numel() // q.shape[-1] * self.k.shape[-2]

    def part(self, index: slice, first: int, queries: int, text: slice) -> tuple[AttentionCall, slice]:
        """Some rows of the batch, `queries` queries from `first` on, every query head with its own key head, and where the
        keys `text` stand in it. Of the other keys only where the log-sum-exp is not known."""
        q, k, bias, lse = self.q[index].narrow(-2, first, queries), self.k[index], self.bias, self.lse
        if bias is not None:
            bias = bias if bias.shape[0] == 1 else bias[index]
            bias = bias if bias.shape[2] == 1 else bias.narrow(2, first, queries)
        if lse is not None:
            lse = lse[index].narrow(2, first, queries)
            k, bias = k[..., text, :], bias if bias is None or bias.shape[3] == 1 else bias[..., text]
            text = slice(0, text.stop - text.start)
        if not self.packed_heads and k.shape[1] != q.shape[1]:
            k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        return AttentionCall(q, k, self.scale, bias, lse, self.packed_heads), text

    def with_lse(self, lse: Tensor | None) -> AttentionCall:
        """The same with the log-sum-exp; a query that may attend to nothing has infinity, and so no attention."""
        if lse is None and self.lse is None:
            return self
        if lse is not None and self.bias is not None:
            lse = lse.masked_fill(torch.isneginf(self.bias).all(-1), float("inf"))
        return replace(self, lse=lse)

    def with_output(self, v: Any, output: Any, heads_last: bool = False) -> AttentionCall:
        """The same with its values and what it gave out.

        Args:
            v: the values, as the attention function was given them.
            output: what it returned; the output is first where it returns several things.
            heads_last: whether both are `[batch, n, heads, d]`.

        Raises:
            UnsupportedModel: what it returned is not one row for each query.
        """
        output = output[0] if isinstance(output, (tuple, list)) else output
        if not isinstance(v, Tensor) or not isinstance(output, Tensor):
            raise UnsupportedModel("An attention gave out something else than a tensor, so its output cannot be read.")
        if heads_last:
            v, output = v.transpose(1, 2), output.transpose(1, 2)
        if v.dim() == 3 and not self.packed_heads:
            v, output = v[:, None], output[:, None]
        if output.shape[0] != self.batch or output.shape[-2] != self.queries or v.shape[-2] != self.keys:
            raise UnsupportedModel(
                f"An attention of {self.queries} queries on {self.keys} keys gave out {tuple(output.shape)}, so its output "
                "cannot be read."
            )
        return replace(self, v=v, output=output)

    def heads_apart(self) -> AttentionCall:
        """The same with an axis of heads."""

        def apart(x: Tensor | None) -> Any:
            return x if x is None or x.dim() == 4 else x.unflatten(-1, (self.packed_heads, -1)).transpose(1, 2)

        if not self.packed_heads:
            return self
        q, k, v, output = map(apart, (self.q, self.k, self.v, self.output))
        return replace(self, q=q, k=k, v=v, output=output, packed_heads=0)


def from_sdpa(args: Sequence[Any], kwargs: Mapping[str, Any]) -> AttentionCall:
    """Read the arguments of `torch.nn.functional.scaled_dot_product_attention`: q and k `[..., heads, n, d]`.

    Raises:
        UnsupportedModel: tensors that are not `[batch, heads, n, d]`, or a mask that is no tensor.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    q, k = given["query"], given["key"]
    if q.dim() == 3:
        q, k = q[:, None], k[:, None]
    if q.dim() != 4:
        raise UnsupportedModel(f"An attention with queries of shape {tuple(q.shape)} cannot be read.")
    return _made(q, k, given.get("scale"), _bias(given.get("attn_mask")), bool(given.get("is_causal")))


def from_dispatch(kwargs: Mapping[str, Any]) -> AttentionCall:
    """Read the arguments of one of diffusers' attention backends: q and k `[batch, n, heads, d]`.

    Raises:
        UnsupportedModel: a mask that is no tensor, or attention spread over several devices.
    """
    of_one_device(kwargs.get("_parallel_config"))
    q, k = kwargs["query"].transpose(1, 2), kwargs["key"].transpose(1, 2)
    mask = kwargs.get("attn_mask")
    if mask is not None and mask.dim() == 2 and mask.shape == (q.shape[0], k.shape[2]):
        mask = mask[:, None, None]
    return _made(q, k, kwargs.get("scale"), _bias(mask), bool(kwargs.get("is_causal")))


def from_comfyui(args: Sequence[Any], kwargs: Mapping[str, Any]) -> AttentionCall:
    """Read the arguments of ComfyUI's `optimized_attention(q, k, v, heads, mask, …)`: q and k `[batch, n, heads * d]`, or
    `[batch, heads, n, d]` with `skip_reshape`.

    Raises:
        UnsupportedModel: a mask that is no tensor.
    """
    q, k = args[0], args[1]
    heads = int(args[3] if len(args) > 3 else kwargs["heads"])
    mask = args[4] if len(args) > 4 else kwargs.get("mask")
    split = bool(kwargs.get("skip_reshape", args[6] if len(args) > 6 else False))
    if isinstance(mask, Tensor) and mask.dim() == 3:
        mask = mask[:, None]
    scale, bias = kwargs.get("scale"), _bias(mask)
    if not split and q.shape[-1] == k.shape[-1]:
        width = q.shape[-1] // heads
        return AttentionCall(q, k, width**-0.5 if scale is None else float(scale), bias, packed_heads=heads)
    if not split:  # several query heads read one key head
        width = q.shape[-1] // heads
        q, k = (x.unflatten(-1, (-1, width)).transpose(1, 2) for x in (q, k))
    return _made(q, k, scale, bias, causal=False)


def comfyui_output(call: AttentionCall, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> AttentionCall:
    """A call of ComfyUI's `optimized_attention` with its values and what it gave out, see `from_comfyui`.

    Raises:
        UnsupportedModel: what it gave out is not one row for each query.
    """
    v = args[2] if len(args) > 2 else kwargs.get("v")
    split = bool(kwargs.get("skip_reshape", args[6] if len(args) > 6 else False))
    if not split and isinstance(v, Tensor) and v.dim() == 4:  # Stable Diffusion 3 gives `[batch, n, heads, d]`
        v = v.flatten(2)
    if not call.packed_heads and isinstance(v, Tensor) and isinstance(output, Tensor):
        if v.dim() == 3:
            v = v.unflatten(-1, (call.k.shape[1], -1)).transpose(1, 2)
        if output.dim() == 3:
            output = output.unflatten(-1, (call.heads, -1)).transpose(1, 2)
    return call.with_output(v, output)


def _made(q: Tensor, k: Tensor, scale: float | None, bias: Tensor | None, causal: bool) -> AttentionCall:
    if causal:
        bias = _bias(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril())
    return AttentionCall(q, k, q.shape[-1] ** -0.5 if scale is None else float(scale), bias)


def _bias(mask: Any) -> Tensor | None:
    """A mask as what is added to the scores, in float32 with four axes: True is 0 and False minus infinity; numbers are
    added."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise UnsupportedModel(f"An attention mask of the class {type(mask).__name__} cannot be read.")
    if mask.dtype == torch.bool:
        added = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))
    else:
        added = mask.detach().float()
    return added.reshape((1,) * (4 - added.dim()) + tuple(added.shape))
