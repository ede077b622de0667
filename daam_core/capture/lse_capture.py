"""Catches the log-sum-exp that a fused attention kernel computes on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .attention_call import AttentionCall

_FUSED = tuple(f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn"))


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

    def of(self, call: AttentionCall) -> Tensor | None:
        """float32 `[batch, heads, n]`, None where the kernel gave none away, or padded it."""
        if len(self._found) != 1:
            return None
        lse = self._found[0]
        wanted = (call.batch, call.heads, call.queries)
        return lse if tuple(lse.shape) == wanted and lse.dtype == torch.float32 else None
