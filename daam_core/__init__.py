"""Which word painted where: heat maps and masks from the cross-attention of diffusion models (DAAM, ACL 2023).

    from daam_core import HeatMaps, load_tiny, trace

    pipe = load_tiny()
    with trace(pipe) as recording:
        picture = pipe("a red house and a green tree").images[0]
    maps = recording.heat_maps()
    maps.mask("house")

Names are loaded when they are first used, so that importing the package is quick in every host.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusers.attention_trace import AttentionTrace as AttentionTrace
    from .diffusers.trace import trace as trace
    from .errors import DaamLensError as DaamLensError
    from .maps.heatmaps import HeatMaps as HeatMaps
    from .prompt.prompt import Prompt as Prompt
    from .tiny.load import load_tiny as load_tiny

__version__ = "0.1.0"
_HOMES = {
    "AttentionTrace": "diffusers.attention_trace",
    "DaamLensError": "errors",
    "HeatMaps": "maps.heatmaps",
    "Prompt": "prompt.prompt",
    "load_tiny": "tiny.load",
    "trace": "diffusers.trace",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
