"""The embedded models: a picture-book world drawn by code, a small Stable Diffusion and a small transformer trained on it.

from . import load_tiny

picture = load_tiny()("a red house and a green tree").images[0]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .load import TinyPipeline as TinyPipeline
    from .load import load_segmenter as load_segmenter
    from .load import load_tiny as load_tiny
    from .scenes import Scene as Scene
    from .scenes import draw as draw
    from .scenes import scene_at as scene_at

_HOMES = {
    "Scene": "scenes",
    "TinyPipeline": "load",
    "draw": "scenes",
    "load_segmenter": "load",
    "load_tiny": "load",
    "scene_at": "scenes",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
