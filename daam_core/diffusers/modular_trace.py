"""Records modular pipelines of diffusers with a transformer or a UNet."""

from __future__ import annotations

from .modular_calls import ModularCalls
from .transformer_trace import TransformerTrace
from .unet_trace import UNetTrace


class ModularTrace(ModularCalls, TransformerTrace):
    """The trace of a modular pipeline with a transformer."""


class ModularUNetTrace(ModularCalls, UNetTrace):
    """The trace of a modular pipeline with a UNet."""

    _reads_encoders = False
