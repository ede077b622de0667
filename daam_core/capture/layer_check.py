"""Every cross-attention layer of a UNet that ran was read, and attended with what was read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedModel
from ..types import Layer
from .block_caches import may_be_cached
from .processor_proof import ProcessorProof, forward_of_others, needs_proof
from .projection_hooks import QKHook

TEXT_LAYERS = ("attn2", ".attention")
"""How the names of layers end that attend to the text."""


class LayerCheck:
    """Notes in one forward which cross-attention layers are entered: each must give queries and keys, and must attend with
    them.

    A hook on each layer would cost every step some hundred microseconds, so this is for a first step alone, and for every
    step where a layer has a processor of somebody's own. Those of diffusers are known to attend so; what others do is computed
    once more.

    Args:
        layers: every layer of the UNet, by its number.
        hooks: on these layers.
        model: the UNet's class.
        bias: what is added to the scores of the text's columns, `[batch, 1, 1, keys]`, None where nothing is.
    """

    def __init__(self, layers: Sequence[Layer], hooks: Sequence[QKHook], model: str, bias: Tensor | None) -> None:
        self._layers, self._hooks, self._model = layers, hooks, model
        self._entered: set[int] = set()
        self._handles: list[RemovableHandle] = []
        self._proofs: dict[int, ProcessorProof] = {}
        for hook in hooks:
            layer = layers[hook.index]
            if not layer.name.endswith(TEXT_LAYERS):
                continue
            self._handles.append(hook.attn.register_forward_pre_hook(lambda *_, index=hook.index: self._entered.add(index)))
            if needs_proof(hook.attn):
                self._proofs[hook.index] = ProcessorProof(hook.attn, layer.heads, layer.scale, bias)

    def remove(self) -> None:
        """Take its hooks off."""
        while self._handles:
            self._handles.pop().remove()
        for proof in self._proofs.values():
            proof.remove()

    def require_all(self, read: Sequence[int]) -> bool:
        """Every layer that was entered is one of those that were read, and attended with what was read; gives whether a cache
        answered for one that had attended before.

        Raises:
            UnsupportedModel: one did not; the text names it and its processor.
        """
        silent = self._entered - set(read)
        cached = {index for index in silent if self._hooks[index].is_cross and may_be_cached(self._hooks[index].attn)}
        changed = [i for i, proof in self._proofs.items() if i in self._entered - silent and not proof.holds]
        if silent - cached:
            raise not_its_own(self._layers, self._hooks[min(silent - cached)], self._model)
        if changed:
            what = "did not give what its queries, keys and values make: something changes them, or the probabilities, behind "
            raise _unread(self._layers, self._hooks[min(changed)], self._model, f"{what}the projections")
        return bool(cached)


def require_paired(layers: Sequence[Layer], hooks: Sequence[QKHook], model: str) -> None:
    """No cross-attention layer gave queries without keys, or keys without queries; those of self-attention are forgotten.

    Raises:
        UnsupportedModel: one did; the text names it and its processor.
    """
    alone = [hook for hook in hooks if hook.q is not None or hook.k is not None]
    for hook in alone:
        hook.forget()
    cross = [
        hook for hook in alone if hook.is_cross or (hook.is_cross is None and layers[hook.index].name.endswith(TEXT_LAYERS))
    ]
    if cross:
        raise not_its_own(layers, cross[0], model)


def not_its_own(layers: Sequence[Layer], hook: QKHook, model: str) -> UnsupportedModel:
    """The sentence for a layer that attended with something else."""
    return _unread(layers, hook, model, "attended without the queries and keys of its own `to_q` and `to_k`")


def _unread(layers: Sequence[Layer], hook: QKHook, model: str, what: str) -> UnsupportedModel:
    start = f"{layers[hook.index].name} of {model} {what}, so its map would be wrong; "
    if (forward := forward_of_others(hook.attn)) is not None:
        name = getattr(forward, "__qualname__", type(forward).__qualname__)
        return UnsupportedModel(f"{start}its `forward` was replaced by {name}. Take that off, or put it into a processor")
    processor = type(getattr(hook.attn, "processor", hook.attn)).__name__
    return UnsupportedModel(f"{start}its processor is {processor}. Use the model's default attention processor")
