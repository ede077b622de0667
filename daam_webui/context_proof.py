"""Proof that a layer attends to the text that the words were taken from: in size at once, in content at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from daam_core.capture.compile_op import is_compiled
from daam_core.capture.forward_wrapper import wrap_forward
from daam_core.errors import NothingRecorded

OTHER_TEXT = (
    "Another extension gave the model, or some of its layers, another text than the prompt while it sampled (regional prompts "
    "and prompts by layer do), so nobody can say which word did what. Switch it off to get heat maps."
)


class ContextProof:
    """Compares texts while a model runs without making it wait: on the device, and the answer is read at the end."""

    def __init__(self) -> None:
        self._same: Tensor | None = None

    def require(self, found: Tensor, expected: Tensor) -> None:
        """`found` begins with `expected`: `[rows, columns, width]`, as exact as it was cast."""
        columns = min(found.shape[1], expected.shape[1])
        if is_same_storage(found, expected):
            return
        if found.shape[0] != expected.shape[0] or found.shape[2] != expected.shape[2]:
            raise NothingRecorded(OTHER_TEXT)
        same = (found[:, :columns] == expected[:, :columns].to(found)).all()
        self._same = same if self._same is None else self._same.to(same.device) & same

    def check(self) -> None:
        """Raises NothingRecorded where any comparison failed; waits for the device."""
        if self._same is not None and not bool(self._same):
            raise NothingRecorded(OTHER_TEXT)


def is_same_storage(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers at the same place."""
    same_place = one.data_ptr() == other.data_ptr() and one.device == other.device and one.dtype == other.dtype
    return same_place and one.shape == other.shape and one.stride() == other.stride()


class ContextHooks:
    """Listens to what the cross-attention layers of a UNet make their keys of; a context manager.

    Args:
        unet: the model.
        on_context: called with a layer's context `[rows, columns, width]`. It must not raise.
    """

    def __init__(self, unet: nn.Module, on_context: Callable[[Tensor], None]) -> None:
        # A compiled graph knows nothing of a `forward` that is set later, and would be compiled anew for it.
        modules = [] if is_compiled(unet) else unet.named_modules()
        self._layers = [
            module.to_k
            for name, module in modules
            if name.endswith("attn2") and isinstance(getattr(module, "to_k", None), nn.Module)
        ]
        self._on_context = on_context
        self._handles: list[Any] = []

    def __enter__(self) -> ContextHooks:
        self._handles = [wrap_forward(layer, self._on_key) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _on_key(self, _module: nn.Module, args: Sequence[Any], _output: Tensor) -> None:
        if args and isinstance(args[0], Tensor):
            self._on_context(args[0])
