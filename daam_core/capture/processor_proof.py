"""Proof that an attention layer attends with the queries and keys of its own projections, whatever its processor is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention.precision import full_precision

_POSITIONS = 256
"""At most so many of a layer's positions are computed once more."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF = 5e-2


def needs_proof(attn: Any) -> bool:
    """Whether a layer's processor or its `forward` is none of diffusers' own, or the layer norms its queries and keys after
    projecting them."""
    processor = getattr(attn, "processor", None)
    own = type(processor).__module__.startswith("diffusers.") and forward_of_others(attn) is None
    return not own or any(getattr(attn, name, None) is not None for name in ("norm_q", "norm_k"))


def may_change(attn: Any) -> bool:
    """Whether a layer's processor or its `forward` is somebody's own: the same object may do something else in a later step
    (prompt-to-prompt's controllers count the steps), so that one proof is none for the next."""
    processor = getattr(attn, "processor", None)
    if processor is None:
        return False
    return not type(processor).__module__.startswith("diffusers.") or forward_of_others(attn) is not None


def forward_of_others(attn: Any) -> Any:
    """What stands in the place of the `forward` of a layer that has a processor, and may not call it (prompt-to-prompt's
    controllers); None where it is diffusers' own, also with hooks around it."""
    forward = getattr(attn, "forward", None)
    if getattr(attn, "processor", None) is None or str(getattr(forward, "__module__", "")).startswith("diffusers."):
        return None
    return forward


class ProcessorProof:
    """Watches one attention layer for one forward: its output, ahead of `to_out`, must be softmax(scale Q K^T + bias) V of
    what its projections gave out.

    Args:
        attn: the layer.
        heads, scale: of the layer.
        bias: what is added to its scores, `[batch, 1, 1, keys]`, None where nothing is.

    Attributes:
        holds: whether it was; False where its output never came to `to_out`.
    """

    def __init__(self, attn: Any, heads: int, scale: float, bias: Tensor | None) -> None:
        self.holds = False
        self._heads, self._scale, self._bias = heads, scale, bias
        self._seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        out = attn.to_out[0] if isinstance(getattr(attn, "to_out", None), (nn.ModuleList, nn.Sequential)) else None
        modules = {name: getattr(attn, name, None) for name in ("to_q", "to_k", "to_v")}
        if out is None or not all(isinstance(module, nn.Module) for module in modules.values()):
            return
        for name, module in modules.items():
            assert module is not None
            self._handles.append(module.register_forward_hook(lambda _m, _a, y, name=name: self._seen.__setitem__(name, y)))
        self._handles.append(out.register_forward_pre_hook(self._compare))

    def remove(self) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def _compare(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        if not args or len(self._seen) < 3:
            return
        try:
            self.holds = self._alike(args[0].detach())
        except Exception:  # projections of other shapes, or no tensors at all: this runs inside the model
            self.holds = False

    def _alike(self, output: Tensor) -> bool:
        """Whether the layer's output is what its projections make."""
        q, k, v = (self._seen[name].detach() for name in ("to_q", "to_k", "to_v"))
        if output.shape != q.shape or len(q) != len(k):
            return False
        some = slice(None, None, -(-q.shape[1] // _POSITIONS))
        with torch.no_grad(), full_precision(q.device):
            q, k, v = (x.float().unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in (q[:, some], k, v))
            scores = q @ k.transpose(-1, -2) * self._scale
            p = torch.softmax(scores if self._bias is None else scores + self._bias, -1)
            expected = (p @ v).transpose(1, 2).flatten(2)
            off = (output[:, some].float() - expected).abs().max()
            return bool(off <= _TOLERANCE.get(output.dtype, _HALF) * expected.abs().max())
