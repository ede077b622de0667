"""What stands in for the forward of a layer's projections, and of the module that owns the layer, while a UNet is recorded.

The large layers around it leave nothing of a hook in the processor's caches, so what a hook touches costs more than what it
computes. Where a layer's way is known, its projections are only noted, and everything else is done when the model is through:
see `noted_layers`.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from torch import Tensor, nn

from ..types import Grid
from .compile_op import Dispatcher
from .forward_wrapper import ForwardWrapper, OnForward, nothing

Note = tuple[int, bool, Any, Tensor | None, int]
"""What one projection gave out: (layer, whether these are keys, what they were made of, the tensor, how often it had been
written to). No tensor where the keys are those that are held already. A plain tuple: 140 are made in a step of SDXL."""


READ, NOTE, SKIP = 0, 1, 2
"""What becomes of what a projection gives out: it is read at once, noted, or neither. Plain numbers: an enumeration compares
slowly."""


class ProjectionWrapper(ForwardWrapper):
    """Wraps one projection's forward.

    Args:
        module: the projection.
        on_forward: reads what it gives out, in the thread whose forward is recorded.
        dispatcher: says which thread that is, and has the notes.
        layer: whose projection it is.
        is_key: whether it makes keys.

    Attributes:
        mode: what becomes of what it gives out, one of these numbers.
    """

    def __init__(self, module: nn.Module, on_forward: OnForward, dispatcher: Dispatcher, layer: int, is_key: bool) -> None:
        self._dispatcher, self._layer, self._is_key = dispatcher, layer, is_key
        self.mode = READ
        super().__init__(module, on_forward)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        # Each layer of each step comes here twice, so everything is in one function.
        module, below = self._module, self._below
        output = type(module).forward(module, *args, **kwargs) if below is None else below(*args, **kwargs)
        mode, dispatcher = self.mode, self._dispatcher
        if mode == SKIP or dispatcher.thread != get_ident():
            return output
        if not args:
            args = tuple(kwargs.values())  # a processor may name what it gives
        if mode == NOTE and isinstance(output, Tensor):
            source = args[0] if args else None
            if self._is_key and source is dispatcher.context and self._layer in dispatcher.spared:
                dispatcher.notes.append((self._layer, True, source, None, 0))
                return output
            try:
                dispatcher.notes.append((self._layer, self._is_key, source, output, output._version))
                return output
            except RuntimeError:  # tensors of inference mode have no version
                pass
        self._on_forward(module, args, output)
        return output

    def remove(self) -> None:
        """See `ForwardWrapper.remove`."""
        self.mode = SKIP
        super().remove()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "mode": SKIP}


class GridWrapper(ForwardWrapper):
    """Reads (h, w) of what a module is given, `[batch, c, h, w]`; of anything else nothing.

    Args:
        module: it.
        dispatcher: says which thread's forward is recorded.

    Attributes:
        grid: (h, w) of its last call.
    """

    def __init__(self, module: nn.Module, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.grid: Grid = (0, 0)
        super().__init__(module, nothing)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        module, below = self._module, self._below
        if self._dispatcher.thread == get_ident():
            hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
            if isinstance(hidden, Tensor) and len(shape := hidden.shape) == 4:
                self.grid = (shape[2], shape[3])
        return type(module).forward(module, *args, **kwargs) if below is None else below(*args, **kwargs)
