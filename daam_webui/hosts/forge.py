"""Forge, reForge and Forge classic: their own backend tells what its batches are made of, and repeats short contexts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ..batch_rows import Label, in_chunks, in_pieces
from ..sampling_step import SamplingStep
from .a1111 import A1111
from .protocol import UNetCall

_WRAPPER = "model_function_wrapper"
"""The name under which a model keeps the one function that its sampler calls in its place."""


class Forge(A1111):
    """Batches are conditionings side by side, all pictures inside each; which stands where depends on free memory."""

    repeats_context = True

    def unet(self, model: Any) -> nn.Module:
        found: nn.Module = model.forge_objects.unet.model.diffusion_model
        return found

    def encode_alone(self, model: Any, engine: str, text: str) -> Tensor:
        from backend import memory_management
        from modules import devices, prompt_parser

        # The checkpoint's own method would also take the run's reference pictures, which are the prompt's.
        with self._kept_notes(model), devices.autocast():
            memory_management.load_model_gpu(model.forge_objects.clip.patcher)
            found: Tensor = getattr(model, engine)(prompt_parser.SdConditioning([text]))[0]
        return found[0] if found.dim() == 3 and len(found) == 1 else found

    def labels(self, call: UNetCall, step: SamplingStep) -> list[Label | None]:
        images = step.images
        if call.chunks and call.rows < images * len(call.chunks):
            return in_pieces(call.rows, images, lambda rows: step.alike(call.context, rows), step.recorded)

        def which(chunk: int, done: list[int]) -> int | None:
            return step.part_of(call.context, slice(chunk * images, (chunk + 1) * images), done)

        return in_chunks(call.rows, call.chunks, images, which, step.recorded)

    @contextmanager
    def watch_answers(self, model: Any, seen: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
        """Regional Prompter stands between the model and its sampler, and changes what the sampler gets."""
        options = model.forge_objects.unet.model_options
        wrapper = options.get(_WRAPPER)
        if wrapper is None:
            yield
            return

        def watched(apply: Callable[..., Tensor], given: Any) -> Tensor:
            answers: list[Tensor] = []

            @wraps(apply)
            def noted(*args: Any, **kwargs: Any) -> Tensor:
                answer = apply(*args, **kwargs)
                answers.append(answer.detach().clone())
                return answer

            used: Tensor = wrapper(noted, given)
            # One that keeps answers of before asks for none, one that paints tiles for those of others' sizes.
            if answers and all(answer.shape[1:] == used.shape[1:] for answer in answers):
                seen(used, torch.cat(answers))
            return used

        options[_WRAPPER] = watched
        try:
            yield
        finally:
            if options.get(_WRAPPER) is watched:
                options[_WRAPPER] = wrapper

    @contextmanager
    def _kept_notes(self, model: Any) -> Iterator[None]:
        kept = [(notes, notes.copy()) for notes in _notes_of(model)]
        try:
            yield
        finally:
            for notes, before in kept:
                notes.clear()
                notes.update(before)

    def references(self) -> Sequence[Tensor]:
        arguments = getattr(sys.modules.get("backend.args"), "dynamic_args", None)
        return tuple(getattr(arguments, "ref_latents", None) or ())

    def changes_keys(self) -> bool:
        return False  # its attention has no place for hypernetworks


def _notes_of(model: Any) -> list[dict[str, Any]]:
    """Where the host's text encoders note what an infotext tells of them; each of the forks has its own place for it."""
    owners = [
        (model, "extra_generation_params"),
        (sys.modules.get("backend.text_processing.classic_engine"), "last_extra_generation_params"),
        (getattr(sys.modules.get("backend.args"), "dynamic_args", None), "last_extra_generation_params"),
        (getattr(sys.modules.get("modules.sd_hijack"), "model_hijack", None), "extra_generation_params"),
    ]
    found = [getattr(owner, name, None) for owner, name in owners]
    return [notes for notes in found if isinstance(notes, dict)]
