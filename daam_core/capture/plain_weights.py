"""What a projection's answers depend on, where that can be told: its keys of the same text are then made once."""

from __future__ import annotations

from typing import Any

from torch import nn

from .forward_wrapper import ForwardWrapper

_COMFYUI_LINEAR = ("comfy.ops", "disable_weight_init.Linear")
"""ComfyUI's linear layer, which is PyTorch's unless its weights are cast, offloaded or patched while it runs."""


def plain_weights(projection: nn.Module) -> object:
    """What a plain linear projection's answers depend on; None for any other module, such as one with a LoRA.

    A weight that is exchanged or written into gives another answer; one that is written into past PyTorch's counter (`.data`)
    does not, so who lets others do that in the middle of a run must not ask.
    """
    forward = getattr(vars(projection).get("forward"), "__self__", None)
    own = "forward" not in vars(projection) or (isinstance(forward, ForwardWrapper) and forward.is_innermost)
    if not _is_linear(projection) or projection._forward_hooks or projection._forward_pre_hooks or not own:
        return None
    weight: Any = projection.weight
    if weight is None:
        return None
    return id(weight), weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version


def _is_linear(projection: nn.Module) -> bool:
    kind = type(projection)
    if kind is nn.Linear:
        return True
    if (kind.__module__, kind.__qualname__) != _COMFYUI_LINEAR or not isinstance(projection, nn.Linear):
        return False
    # Asked for by name: a layer without them is another release's, which nobody has looked at.
    marks = [getattr(projection, name, True) for name in ("comfy_cast_weights", "weight_function", "bias_function")]
    return not any(marks)
