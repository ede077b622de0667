"""Blocks of a transformer that run while none of their attention to the text is seen: maps would be of the others alone."""

from __future__ import annotations

import functools
import threading
from typing import Any

from torch import nn

from ..errors import NothingRecorded
from .compile_op import is_compiling
from .counted_call import CountedCall, text_blocks
from .host_words import NODES, HostWords


class UnrecordedBlocks:
    """Watches the blocks of one run. A block whose attention is computed by somebody else's kernel is told by this alone that
    it runs, and that nothing of it was seen.

    What a cache leaves out in some calls was seen in others, so a block counts only where nothing of it ever was.
    """

    def __init__(self, model: nn.Module, words: HostWords = NODES) -> None:
        self._model, self._words = model, words
        self._handles: list[Any] = []
        self._recorded: dict[str, bool] = {}
        self._before: dict[str, list[int]] = {}  # concepts run a block within itself
        self._call: CountedCall | None = None
        self._thread = threading.get_ident()

    def begin(self, call: CountedCall) -> None:
        """A call of the model whose attention is recorded begins; the blocks are those that it has now."""
        if not self._handles:
            for path, block in text_blocks(getattr(self._model, "_orig_mod", self._model)).items():
                if getattr(block, "_compiled_call_impl", None) is None:  # it would be compiled anew, with the hooks
                    self._handles.append(block.register_forward_pre_hook(functools.partial(self._enter, path)))
                    self._handles.append(block.register_forward_hook(functools.partial(self._leave, path)))
        self._call = call
        self._before.clear()

    def end(self) -> None:
        """The call is over."""
        self._call = None

    def require(self) -> None:
        """Raises NothingRecorded: a block ran, and nothing of its attention to the text was seen in any call."""
        missed = [path for path, recorded in self._recorded.items() if not recorded]
        if not missed:
            return
        shown = f"{missed[0]} of this model" if len(missed) == 1 else f"{len(missed)} blocks of this model ({missed[0]}, …)"
        raise NothingRecorded(
            f"{shown} ran, and none of the attention to the text was seen there: {self._words.another} computes it in a way of "
            "its own, which is shown to nobody (one that calls SageAttention or PyTorch itself), or puts something else in its "
            f"place. Maps without it would lack a part. {self._words.advice}"
        )

    def clear(self) -> None:
        """Take the hooks off."""
        self._call = None
        while self._handles:
            self._handles.pop().remove()

    def _enter(self, path: str, _module: nn.Module, _args: Any) -> None:
        if self._call is not None and not is_compiling() and threading.get_ident() == self._thread:
            self._before.setdefault(path, []).append(self._call.texts)

    def _leave(self, path: str, _module: nn.Module, _args: Any, _output: Any) -> None:
        if self._call is not None and not is_compiling() and self._before.get(path):
            before = self._before[path].pop()
            self._recorded[path] = self._recorded.get(path, False) or self._call.texts > before
