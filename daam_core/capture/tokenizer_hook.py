"""Hooks on a pipeline's tokenizers: what they were given and gave while one of its prompts is encoded."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .shared_wrapper import SharedWrapper


@dataclass(frozen=True)
class Tokenized:
    """One text that a tokenizer read.

    Attributes:
        component: the name that the pipeline knows the tokenizer by.
        tokenizer: itself.
        text: what it was given, a chat template's text included.
        ids: the tokens.
        mask: for each of them whether it is a token, not padding.
        may_cut: whether it was asked to cut off what is longer than it may be.
    """

    component: str
    tokenizer: Any
    text: str
    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    may_cut: bool = False


class _Thread(threading.local):
    def __init__(self) -> None:
        self.records: list[tuple[Mapping[int, str], list[Tokenized]]] = []
        self.short = 0


_THREAD = _Thread()


class TokenizerHook:
    """Wraps the `__call__` of the tokenizers of one pipeline until `remove`; chat templates end there too."""

    def __init__(self, pipe: Any) -> None:
        self._names: dict[int, str] = {}
        self._handles: list[SharedWrapper] = []
        for name, part in dict(getattr(pipe, "components", {})).items():
            tokenizer = getattr(part, "tokenizer", part)  # a processor of text and pictures has one inside
            if not hasattr(tokenizer, "convert_ids_to_tokens") or not callable(tokenizer):
                continue
            self._names.setdefault(id(tokenizer), name)
            owner = next(c for c in type(tokenizer).__mro__ if "__call__" in vars(c))
            self._handles.append(SharedWrapper(owner, "__call__", _wrap_call))

    def remove(self) -> None:
        """Put back what was there."""
        while self._handles:
            self._handles.pop().remove()

    @contextmanager
    def record(self) -> Iterator[list[Tokenized]]:
        """A list that fills with what this pipeline's tokenizers read in this thread, inside the block."""
        found: list[Tokenized] = []
        entry = (self._names, found)
        _THREAD.records.append(entry)
        try:
            yield found
        finally:
            # By identity: two records that are equal so far may be one inside the other.
            _THREAD.records[:] = [other for other in _THREAD.records if other is not entry]


@contextmanager
def padded_to_longest() -> Iterator[None]:
    """Inside the block hooked tokenizers pad to the longest text where they are asked for a fixed length, in this thread."""
    _THREAD.short += 1
    try:
        yield
    finally:
        _THREAD.short -= 1


def _wrap_call(below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _THREAD.short and kwargs.get("padding") == "max_length":
            kwargs["padding"] = "longest"
        result = below(self, *args, **kwargs)
        for names, found in _THREAD.records:
            if (name := names.get(id(self))) is not None:
                found += _read(name, self, args[0] if args else kwargs.get("text"), result, bool(kwargs.get("truncation")))
        return result

    return call


def _read(name: str, tokenizer: Any, text: Any, result: Any, may_cut: bool) -> list[Tokenized]:
    """What one call read; nothing where its form is not that of texts in and ids out."""
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, (list, tuple)) else []
    try:
        ids, mask = result["input_ids"], result.get("attention_mask")
    except (KeyError, TypeError, AttributeError):
        return []
    rows, masks = _rows(ids), _rows(mask)
    if len(rows) != len(texts) or not all(isinstance(t, str) for t in texts):
        return []
    kept = [tuple(map(bool, mask)) for mask in masks] or [(True,) * len(row) for row in rows]
    return [Tokenized(name, tokenizer, *one, may_cut) for one in zip(texts, map(tuple, rows), kept, strict=False)]


def _rows(values: Any) -> list[Sequence[int]]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if not values:
        return []
    return [list(row) for row in values] if isinstance(values[0], (list, tuple)) else [list(values)]
