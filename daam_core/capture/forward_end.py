"""A hook for the end of a module's forward, however it ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def register_forward_end(module: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> RemovableHandle:
    """`hook(module, args, output)` after each forward; `output` is None where the module raised.

    PyTorch 2.0, which older WebUIs bring, cannot call it there: then the next forward begins without an end before it.
    """
    if "always_call" in inspect.signature(module.register_forward_hook).parameters:
        return module.register_forward_hook(hook, always_call=True)
    return module.register_forward_hook(hook)
