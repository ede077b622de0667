"""Float32 products that are float32, whatever a host has told PyTorch about speed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = frozenset(f"aten::{name}{end}" for name in ("mm", "bmm", "addmm", "baddbmm") for end in ("", "_"))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """In it, float32 matrix products of this thread are computed as such.

    Autocast would run them in half precision. So would a processor with bfloat16 units where the host asks for
    `torch.set_float32_matmul_precision("medium")`, which holds for the whole process: it stays as it is, since another thread
    may be at a picture, and the products are computed in float64 instead.
    """
    if device.type == "cpu" and _are_lowered():
        return _InFloat64()
    if is_autocast(device):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def is_autocast(device: torch.device) -> bool:
    """Whether this thread computes in half precision on such a device. WebUIs bring PyTorch 2.1 and 2.3, where each kind of
    device has a function of its own."""
    try:
        return torch.is_autocast_enabled(device.type)
    except TypeError:
        of_kind = {"cuda": torch.is_autocast_enabled, "cpu": torch.is_autocast_cpu_enabled}
        return device.type in of_kind and of_kind[device.type]()


def _are_lowered() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "medium"
    except RuntimeError:  # it was set for single backends, which this cannot name
        return True


class _InFloat64(TorchDispatchMode):
    """Computes this thread's products of float32 matrices in float64, without autocast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._autocast = torch.autocast("cpu", enabled=False)

    def __enter__(self) -> _InFloat64:
        self._autocast.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._autocast.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operator itself, or its product in float64."""
        name, kwargs = func._schema.name, dict(kwargs or {})
        if name not in _PRODUCTS:
            return func(*args, **kwargs)
        out = args[0] if name.endswith("_") else kwargs.pop("out", None)
        plain = getattr(torch.ops.aten, name.removeprefix("aten::").removesuffix("_")).default
        found = plain(*(_wide(x) for x in args), **{key: _wide(x) for key, x in kwargs.items()})
        if out is not None:
            return out.copy_(found)
        like = next(x for x in args if isinstance(x, Tensor))
        return found.to(like.dtype)


def _wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x
