"""Caches of diffusers that answer for an attention, or for whole blocks, with what an earlier step gave."""

from __future__ import annotations

from torch import nn

_ATTENTION_CACHES = ("pyramid_attention_broadcast", "faster_cache_block", "taylorseer_cache")
"""What diffusers calls its hooks that may answer for one attention module (`diffusers.hooks`)."""


def may_be_cached(attention: nn.Module) -> bool:
    """Whether a cache may answer for an attention module, so that a call of it without an attention is no fault."""
    hooks = getattr(getattr(attention, "_diffusers_hook", None), "hooks", {})
    return any(name in hooks for name in _ATTENTION_CACHES)
