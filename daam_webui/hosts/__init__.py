"""The WebUI that this extension runs in: one file a host, chosen by what the host has, never by its name."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from .protocol import PageHost, UNetCall, WebUI

__all__ = ["PageHost", "UNetCall", "WebUI", "current", "page_host", "paints_with_pipelines"]


def paints_with_pipelines() -> bool:
    """Whether the host is SD.Next, which paints with diffusers' pipelines and whose sampler tells nobody of its steps."""
    try:
        return find_spec("modules.processing_diffusers") is not None
    except (ImportError, ValueError):
        return False


@cache
def page_host() -> PageHost:
    """The running host's page and files."""
    if paints_with_pipelines():
        from .sdnext import SDNext

        return SDNext()
    return current()


@cache
def current() -> WebUI:
    """The running host: Forge Neo's parser of prompts has lost an argument, Forge loads models by itself; else A1111."""
    from modules import prompt_parser, sd_models

    from .a1111 import A1111
    from .forge import Forge
    from .forge_neo import ForgeNeo, lost_an_argument

    if lost_an_argument(prompt_parser.get_learned_conditioning_prompt_schedules):
        return ForgeNeo()
    return Forge() if hasattr(sd_models, "forge_loader") else A1111()
