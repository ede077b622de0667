"""Seconds spent in our own code while a model runs: what a busy machine disturbs little.

The ratio of two steps scatters with whatever else a machine does, by more than what recording costs. Here the clock runs only
while our hooks do, and stops where they call the model on; what the clock itself takes is measured first and left out. What our
code makes slower without running itself, a cache that holds its tensors, is not in it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from daam_core.capture import transformer_attention
from daam_core.capture.forward_wrapper import ForwardWrapper
from daam_core.capture.projection_wrapper import GridWrapper, ProjectionWrapper
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_layers import LayerWrapper
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.capture.unet_recording import UNetRecording

OURS: tuple[tuple[type, str], ...] = (
    (ForwardWrapper, "_forward"),
    (GridWrapper, "_forward"),
    (ProjectionWrapper, "_forward"),
    (LayerWrapper, "_forward"),
    (UNetAttentionHooks, "_begin"),
    (UNetAttentionHooks, "_end"),
    (UNetRecording, "end_step"),
    (TransformerHooks, "_begin"),
    (TransformerHooks, "_end"),
    (TransformerRecording, "end_step"),
)
"""Where the model's own code calls ours."""
_LONG = ("_begin", "_end", "end_step")
"""Of these, those that call nothing of the model's, and are long enough for the clock of processor time, which takes 2 us."""


class Inside:
    """A context manager to be entered before a trace is.

    Args:
        models: what runs: the forwards of their modules, and attention, are the model's own time.
        clock: for what calls the model on; `time.thread_time` where that takes longer than a machine's turns do.

    Attributes:
        seconds: spent in our code since `reset`.
    """

    def __init__(self, models: Iterable[nn.Module], clock: Callable[[], float] = time.perf_counter) -> None:
        self._classes = {type(part) for model in models for part in model.modules()}
        self._clock = clock
        self._kept: list[tuple[Any, str, Any, bool]] = []
        self._ours = False
        self._since = self._raw = 0.0
        self._switches = 0
        self._each = 0.0

    @property
    def seconds(self) -> float:
        return self._raw - self._switches * self._each

    def reset(self) -> None:
        """Count from now on."""
        self._raw, self._switches = 0.0, 0

    def __enter__(self) -> Inside:
        self._each = self._cost()
        for owner, name in OURS:
            self._replace(owner, name, self._entering)
        for owner in {next(c for c in kind.__mro__ if "forward" in vars(c)) for kind in self._classes}:
            self._replace(owner, "forward", self._leaving)
        self._replace(torch.nn.functional, "scaled_dot_product_attention", self._leaving)
        self._wrapping = transformer_attention._wrap_attention
        transformer_attention._wrap_attention = self._wrap_attention  # type: ignore[assignment]
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        transformer_attention._wrap_attention = self._wrapping
        for owner, name, value, own in reversed(self._kept):
            setattr(owner, name, value) if own else delattr(owner, name)
        self._kept = []

    def _replace(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._kept.append((owner, name, getattr(owner, name), name in vars(owner)))
        setattr(owner, name, wrap(getattr(owner, name)))

    def _wrap_attention(self, read: Any, below: Callable[..., Any]) -> Callable[..., Any]:
        return self._entering(self._wrapping(read, self._leaving(below)))

    def _entering(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The clock runs while `function` does."""
        clock = time.thread_time if function.__name__ in _LONG else self._clock

        @functools.wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            if self._ours:
                return function(*args, **kwargs)
            self._ours, self._since = True, clock()
            try:
                return function(*args, **kwargs)
            finally:
                self._raw += clock() - self._since
                self._switches += 1
                self._ours = False

        return clocked

    def _leaving(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The clock stands while `function` runs."""
        clock = self._clock

        @functools.wraps(function)
        def paused(*args: Any, **kwargs: Any) -> Any:
            if not self._ours:
                return function(*args, **kwargs)
            self._raw += clock() - self._since
            self._switches += 1
            self._ours = False
            try:
                return function(*args, **kwargs)
            finally:
                self._ours, self._since = True, clock()

        return paused

    def _cost(self) -> float:
        """Seconds that the clock counts of itself each time it runs."""

        def nothing(*_: Any, **__: Any) -> None:
            return None

        outer = self._entering(nothing)
        costs = []
        for _ in range(20):
            self.reset()
            for _ in range(500):
                outer(None, None)
            costs.append(self._raw / self._switches)
        return min(costs)
