"""Forge, reForge and Forge classic: their own backend tells what its batches are made of, and repeats short contexts."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..batch_rows import Label, in_chunks
from ..sampling_step import SamplingStep
from .a1111 import A1111
from .protocol import UNetCall


class Forge(A1111):
    """Batches are conditionings side by side, all pictures inside each; which stands where depends on free memory."""

    repeats_context = True

    def unet(self, model: Any) -> nn.Module:
        found: nn.Module = model.forge_objects.unet.model.diffusion_model
        return found

    def labels(self, call: UNetCall, step: SamplingStep) -> list[Label | None]:
        images = call.rows // len(call.chunks) if call.chunks else 0

        def which(chunk: int, done: list[int]) -> int | None:
            return step.part_of(call.context, slice(chunk * images, (chunk + 1) * images), done)

        return in_chunks(call.rows, call.chunks, images, which, step.recorded)

    def changes_keys(self) -> bool:
        return False  # its attention has no place for hypernetworks
