"""The WebUI that this extension runs in: one file a host, chosen by what the host has, never by its name."""

from __future__ import annotations

from functools import cache

from .protocol import UNetCall, WebUI

__all__ = ["UNetCall", "WebUI", "current"]


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
