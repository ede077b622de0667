"""A forward hook that costs a step next to nothing, by standing in for a module's `forward`.

PyTorch takes a slow path through a module that has hooks: some 9 microseconds a call against 2, 140 times a step in SDXL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

OnForward = Callable[[nn.Module, tuple[Any, ...], Any], None]
"""Takes a module, the positional arguments of its call and what it gave out, as a forward hook does. It must not raise."""


class ForwardWrapper:
    """Wraps one module's `forward` until `remove`; a handle like that of a forward hook.

    What was there is called as it was: a `forward` of the instance (accelerate's offloading sets one), else the class's,
    looked up at every call, since a WebUI exchanges that of `Linear` for LoRA.
    """

    def __init__(self, module: nn.Module, on_forward: OnForward) -> None:
        self._module, self._on_forward = module, on_forward
        self._below: Any = module.__dict__.get("forward")
        self._attached = True
        self._stand_in = self._forward  # one object, to know it again
        module.__dict__["forward"] = self._stand_in

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        module, below = self._module, self._below
        output = type(module).forward(module, *args, **kwargs) if below is None else below(*args, **kwargs)
        if self._attached:
            self._on_forward(module, args, output)
        return output

    def __getstate__(self) -> dict[str, Any]:
        """A model that is copied or written while it is wrapped takes its wrappers along: the copy's call nobody back."""
        return {**vars(self), "_attached": False, **dict.fromkeys(_CALLBACKS & vars(self).keys(), nothing)}

    @property
    def attached(self) -> bool:
        """Whether it was not removed."""
        return self._attached

    @property
    def in_place(self) -> bool:
        """Whether the module's `forward` is still this one: nobody put another over it or in its place."""
        return self._module.__dict__.get("forward") is self._stand_in

    @property
    def is_innermost(self) -> bool:
        """Whether nothing else stands in for the module's `forward` below this one."""
        return self._below is None

    @property
    def is_outermost(self) -> bool:
        """Whether what it gets is what the module gives out: a forward hook may still change that."""
        return self.in_place and not self._module._forward_hooks

    def remove(self) -> None:
        """Put back what was there. Where somebody wrapped this one, it stays below, detached, for them to call."""
        self._attached = False
        own = self._module.__dict__
        top = own.get("forward")
        while (one := getattr(top, "__self__", None)) is not None and isinstance(one, ForwardWrapper) and not one._attached:
            top = one._below
        if top is None:
            own.pop("forward", None)
        else:
            own["forward"] = top


_CALLBACKS = {"_on_forward", "_owner", "_callbacks"}
"""Attributes of wrappers that hold what belongs to a recording."""


def nothing(*_: Any) -> None:
    """Nothing is done around the forward."""


def wrap_forward(module: nn.Module, on_forward: OnForward, by_hook: bool = False) -> ForwardWrapper | RemovableHandle:
    """Call `on_forward` after a module's forward: by wrapping it, or by a hook where asked for or where others' hooks are."""
    if by_hook or module._forward_hooks:
        return module.register_forward_hook(on_forward)
    return ForwardWrapper(module, on_forward)
