"""Another pack's replacement of a UNet's cross-attention: recorded where it attends with the layer's own queries and keys."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from comfy.ldm.modules import attention as host_attention
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...daam_core.capture.shared_wrapper import SharedWrapper
from ...daam_core.errors import NothingRecorded
from .recording_session import RecordingSession

_LEFT_OUT = "another node computes the cross-attention itself (IP-Adapter and its like do)"
_SDPA = torch._C._nn.scaled_dot_product_attention


class RecordedReplacement:
    """A replacement of a cross-attention (IP-Adapter's and its like). Everything else about it shows through.

    It is called with the layer's queries and keys and may do with them what it likes: add a picture's attention to the text's,
    or exchange the softmax (PLADIS), the scores (DenseDiffusion) or the temperature. What is recorded is the attention that it
    runs with those queries and keys, by the host's functions or by PyTorch's; where it runs none, nobody can say how it
    attends.
    """

    def __init__(self, session: RecordingSession, replacement: Any) -> None:
        self._session, self._replacement = session, replacement

    def __call__(self, q: Any, k: Any, v: Any, extra_options: Any, *args: Any, **kwargs: Any) -> Any:
        session = self._session
        if torch.compiler.is_compiling():
            torch.compiler.disable(session.fail)(NothingRecorded(_COMPILED))
            return self._replacement(q, k, v, extra_options, *args, **kwargs)
        if session.next_call is None:
            return self._replacement(q, k, v, extra_options, *args, **kwargs)
        seen = _Attention(session, q, k, v)
        with observed_by(seen), seen:
            out = self._replacement(q, k, v, extra_options, *args, **kwargs)
        seen.require()
        return out

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._replacement, name)
        if name != "to":
            return found

        def to(*args: Any, **kwargs: Any) -> RecordedReplacement:  # ComfyUI puts what `to` gives out in our place
            return RecordedReplacement(self._session, found(*args, **kwargs))

        return to


_COMPILED = (
    "another node computes the cross-attention itself (IP-Adapter and its like do), and how it attends cannot be seen of a "
    "compiled model. Leave out the node that compiles, or the other one"
)


class _Attention(TorchFunctionMode):
    """Waits for the attention of a layer's queries `[batch, n, heads * d]` with its keys, and records the first."""

    def __init__(self, session: RecordingSession, q: Any, k: Any, v: Any) -> None:
        super().__init__()
        self._session, self._given, self._seen = session, (q, k, v), False
        self._pending, session.next_call = session.next_call, None  # or any attention that is told its options would count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _SDPA and not self._seen:
            self._safely(self._of_pytorch, args, kwargs)
        return func(*args, **kwargs)

    def of_host(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """One of the host's attention functions is called: `(q, k, v, heads, mask, …)`."""
        if not self._seen:
            self._safely(self._of_host, args, kwargs)

    def require(self) -> None:
        """Ends the recording where nothing was seen."""
        self._safely(self._require)

    def _of_host(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if len(args) > 1 and all(map(_same_numbers, args[:2], self._given)):
            self._record(args, kwargs)

    def _of_pytorch(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = {**dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)), **kwargs}
        query = given.get("query")
        if given.get("dropout_p") or given.get("is_causal") or not isinstance(query, Tensor) or query.dim() != 4:
            return
        if all(map(_same_numbers, (query, given.get("key")), self._given)):
            q, k, v = self._given
            self._record((q, k, v, query.shape[1], given.get("attn_mask")), {"scale": given.get("scale")})

    def _record(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._seen, self._session.next_call = True, self._pending
        self._session.on_attention(args, kwargs)
        self._session.leave_out(_LEFT_OUT)

    def _require(self) -> None:
        if not self._seen:
            raise NothingRecorded(
                "another node computes the cross-attention in a way of its own (PLADIS, DenseDiffusion and nodes that change "
                "its temperature do), so nobody can say how the picture attends to the words. Record without that node"
            )

    def _safely(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._session.fail(error)


def _same_numbers(one: Any, other: Any) -> bool:
    """Whether two tensors are the same numbers in the memory, seen as they are or with the heads apart."""
    return isinstance(one, Tensor) and one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


class AttentionObserver(Protocol):
    """Is shown attention."""

    def of_host(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """One of the host's attention functions is called: `(q, k, v, heads, mask, …)`."""


class _Thread(threading.local):
    """Who watches the attention of this thread, innermost last."""

    def __init__(self) -> None:
        self.observers: list[AttentionObserver] = []


_THREAD = _Thread()


@contextmanager
def observed_by(observer: AttentionObserver) -> Iterator[None]:
    """Show `observer` every call of the host's attention functions in this thread, under whatever name it is called.

    Other packs import these functions by name, so the function inside the host's own wrapper around each is wrapped.
    """
    wrappers = [SharedWrapper(cell, "cell_contents", _wrapped) for cell in _CELLS]
    _THREAD.observers.append(observer)
    try:
        yield
    finally:
        _THREAD.observers.remove(observer)
        for wrapper in wrappers:
            wrapper.remove()


def _cells() -> tuple[Any, ...]:
    """Where the host's wrappers keep the attention functions that they are made of, each once."""
    found = {}
    for function in vars(host_attention).values():
        inner = getattr(function, "__wrapped__", None)
        for cell in getattr(function, "__closure__", None) or () if inner is not None else ():
            if cell.cell_contents is inner:
                found[id(cell)] = cell
    return tuple(found.values())


_CELLS = _cells()


def _wrapped(below: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(below)
    def attention(*args: Any, **kwargs: Any) -> Any:
        if _THREAD.observers:
            _THREAD.observers[-1].of_host(args, kwargs)
        return below(*args, **kwargs)

    attention.__dict__[_BELOW] = below
    return attention


_BELOW = "daam_lens_below"


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of the host's attention functions without what `observed_by` wraps it in: others may know it by its identity."""
    return getattr(function, _BELOW, function)
