"""Attention to the text that a transformer's blocks run without showing it to anybody: the sum over layers would lack it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .recording_session import RecordingSession
from .replaced_attention import observed_by


class _Unreported:
    """Every call of the host's attention functions in this thread; those that a run's own listener shows are left alone."""

    def __init__(self, session: RecordingSession) -> None:
        self._session = session

    def of_host(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """`(q, k, v, heads, mask, …)`."""
        if not torch.compiler.is_compiling():
            self._session.on_unreported_attention(args, kwargs)


@contextmanager
def unreported_attention_ends(session: RecordingSession, compiled: bool) -> Iterator[None]:
    """While a sampler runs: an attention of a transformer to the text that is not told to the session ends the recording.

    Blocks that another node puts in place of the host's often hand the model's options on to no attention, or call none of the
    host's functions.
    """
    if session.family is None or compiled:  # a UNet says of each attention that it comes; a compiled model is left as it is
        yield
        return
    with observed_by(_Unreported(session)), session.blocks_watched():
        yield
