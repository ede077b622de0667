"""One call of ComfyUI's attention function, whatever form its arguments have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .sdpa_call import AttentionCall

_FUSED = tuple(f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn"))


class Attention(NamedTuple):
    """q and k `[batch, n, heads * d]`, or `[batch, heads, n, d]` where `split`; scores are q.k * scale + bias."""

    q: Tensor
    k: Tensor
    heads: int
    split: bool
    scale: float
    bias: Tensor | None

    @property
    def queries(self) -> int:
        return self.q.shape[-2]

    @property
    def keys(self) -> int:
        return self.k.shape[-2]

    def select(self, start: int, stop: int, first: int, queries: int) -> Attention:
        """Some rows of the batch, some of the queries, all keys."""
        bias = self.bias
        if bias is not None:
            bias = bias if bias.shape[0] == 1 else bias[start:stop]
            bias = bias if bias.shape[-2] == 1 else bias[..., first : first + queries, :]
        return Attention(
            self.q[start:stop].narrow(-2, first, queries), self.k[start:stop], self.heads, self.split, self.scale, bias
        )


def attention_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attention:
    """Read (q, k, v, heads, mask, …) of `optimized_attention`."""
    q, k = args[0], args[1]
    heads = int(args[3] if len(args) > 3 else kwargs["heads"])
    mask = args[4] if len(args) > 4 else kwargs.get("mask")
    split = bool(kwargs.get("skip_reshape", args[6] if len(args) > 6 else False))
    if split and k.shape[1] != q.shape[1]:  # several query heads read one key head
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    width = q.shape[-1] if split else q.shape[-1] // heads
    scale = kwargs.get("scale")
    return Attention(q, k, heads, split, width**-0.5 if scale is None else float(scale), _bias(mask))


def _bias(mask: Tensor | None) -> Tensor | None:
    """A mask of any of ComfyUI's shapes as what is added to the scores, `[batch or 1, heads or 1, n or 1, keys]`."""
    if mask is None:
        return None
    shaped = mask[None, None] if mask.dim() == 2 else mask[:, None] if mask.dim() == 3 else mask
    if shaped.dtype == torch.bool:
        return torch.zeros(shaped.shape, device=mask.device).masked_fill_(~shaped, float("-inf"))
    return shaped.float()


class LseCapture(TorchDispatchMode):
    """Catches the log-sum-exp that a fused kernel computes on the way, while the host's own attention runs inside.

    It changes nothing: every operator is called as it came. In inference mode the attention arrives as one operator that
    is made of others; it is taken apart by its own definition, which then calls the same kernel.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            with self:
                return func.decompose(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        if func.__name__.split(".")[0].removesuffix("_for_cpu") in _FUSED:
            self._found.append(out[1])
        return out

    def of(self, call: Attention | AttentionCall) -> Tensor | None:
        """float32 `[batch, heads, n]`, None where the kernel gave none away, or padded it."""
        if len(self._found) != 1:
            return None
        lse = self._found[0]
        wanted = (call.q.shape[0], call.heads, call.queries)
        return lse if tuple(lse.shape) == wanted and lse.dtype == torch.float32 else None
