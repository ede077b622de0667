"""Records a diffusers pipeline with a UNet while it paints, without touching the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..capture.buffers import StoreOptions
from ..capture.method_hook import MethodHook
from ..capture.recording import Recording
from ..capture.unet_hooks import UNetAttentionHooks
from ..errors import UnsupportedModel
from ..prompt.prompt import Prompt
from ..types import Grid
from .attention_trace import AttentionTrace, Generation


@dataclass
class _Request:
    """What the pipeline was asked for, as its `encode_prompt` saw it; None where embeddings were given by hand."""

    prompts: list[str] | None
    negatives: list[str] | None
    guided: bool


class UNetTrace(AttentionTrace):
    """The trace of a pipeline with a cross-attention UNet."""

    def __init__(self, pipe: Any, keep: StoreOptions, negative: bool) -> None:
        super().__init__(pipe, keep, negative)
        unet = getattr(pipe, "unet", None)
        if not isinstance(unet, torch.nn.Module):
            raise UnsupportedModel(
                f"{type(pipe).__name__} has no UNet and no transformer. DAAM Lens reads pipelines that have one of them."
            )
        self._hooks = UNetAttentionHooks(
            unet, self._on_attention, self._begin_step, self._end_step, self._fail, keep.self_attention
        )
        self._request: _Request | None = None
        self._generation: Generation | None = None
        self._timestep: Any = 0

    def _attach(self) -> None:
        self._stack.enter_context(self._hooks)
        self._hook_method(self._pipe, "encode_prompt", self._on_encode_prompt)
        self._hook_method(self._pipe, "maybe_free_model_hooks", lambda *_: self._finish())
        self._hook_method(getattr(self._pipe, "image_processor", None), "postprocess", self._on_postprocess)

    def _castorini_side(self) -> int:
        # That package knows two latent sizes: 64 where the model's own picture is 512 or 1024 px, else 96.
        side = int(self._pipe.unet.config.sample_size) * int(self._pipe.vae_scale_factor)
        return 64 if side in (512, 1024) else 96

    # -- what the pipeline tells ------------------------------------------------------------------------------------

    def _hook_method(self, owner: Any, name: str, on_return: Any) -> None:
        if hasattr(owner, name):
            self._stack.callback(MethodHook(owner, name, on_return, self._fail).remove)

    def _on_encode_prompt(self, given: dict[str, Any], result: Any) -> None:
        self._hooks.resume()  # an earlier call may have failed
        by_hand = given.get("prompt_embeds") is not None
        prompts = None if by_hand else _texts(given.get("prompt") or given.get("prompt_2") or "")
        by_hand = given.get("negative_prompt_embeds") is not None
        negatives = None if by_hand else _texts(given.get("negative_prompt") or given.get("negative_prompt_2") or "")
        guided = bool(given.get("do_classifier_free_guidance", False))
        self._generation, self._request = None, _Request(prompts, negatives, guided)

    def _on_postprocess(self, _given: dict[str, Any], result: Any) -> None:
        if self._generation is not None:
            self._generation.pictures = result

    def _finish(self) -> None:
        if self._generation is not None:
            self._generation.recording.release()
        self._generation = self._request = None

    def _fail(self, error: Exception) -> None:
        if self._generation is None:
            self._generation = Generation(Recording(self._keep))
            self._generations.append(self._generation)
        self._generation.recording.fail(error)
        self._generation = self._request = None

    # -- what the UNet tells ----------------------------------------------------------------------------------------

    def _begin_step(self, sample: Tensor, timestep: Any, context: Tensor | None) -> None:
        if self._generation is None and self._request is not None and context is not None:
            self._generation = self._start(self._request, sample, context)
            self._generations.append(self._generation)
        self._timestep = timestep

    def _end_step(self) -> None:
        if self._generation is None or self._generation.prompt is None:
            return
        self._generation.recording.end_step(self._timestep)
        self._hooks.detach_self_attention(but=self._generation.prompt.accumulator.self_grid)

    def _on_attention(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool) -> None:
        generation = self._generation
        if generation is None or generation.prompt is None:
            return
        layer = self._hooks.layers[index]
        if not cross:
            generation.prompt.accumulator.add_self(grid, q, k, layer.heads, layer.scale)
            return
        generation.prompt.accumulator.add_cross(index, grid, q, k, layer.heads, layer.scale)
        if generation.negative is not None:
            generation.negative.accumulator.add_cross(index, grid, q, k, layer.heads, layer.scale)

    def _start(self, request: _Request, sample: Tensor, context: Tensor) -> Generation:
        perturbed = bool(getattr(self._pipe, "do_perturbed_attention_guidance", False))
        # Rows are stacked as [negative, prompt, perturbed]; the first and the last only where their guidance is on.
        images = sample.shape[0] // (1 + request.guided + perturbed)
        factor = int(getattr(self._pipe, "vae_scale_factor", 8))
        keys = context.shape[1]
        self._hooks.reattach()  # an earlier generation left out what it had no use for
        recording = Recording(self._keep, hold=not self._hooks.compiled)
        recording.describe(self._hooks.layers)
        first = images if request.guided else 0
        prompts = self._prompts(request.prompts, images, keys)
        prompt = recording.add_group("prompt", range(images), prompts, index=slice(first, first + images))
        negative = None
        if self._negative and request.guided:
            negatives = self._prompts(request.negatives, images, keys)
            negative = recording.add_group("negative", range(images), negatives, index=slice(0, images))
        size = (sample.shape[2] * factor, sample.shape[3] * factor)
        return Generation(recording, images, size, prompt, negative)

    def _prompts(self, texts: list[str] | None, images: int, keys: int) -> list[Prompt]:
        tokenizer = getattr(self._pipe, "tokenizer", None) or getattr(self._pipe, "tokenizer_2", None)
        if texts is None or tokenizer is None:
            return [Prompt.by_index(keys)] * images
        prompts = [self._prompt(text, tokenizer) for text in texts]
        each = max(1, images // len(prompts))
        return [prompts[min(i // each, len(prompts) - 1)] for i in range(images)]

    def _prompt(self, text: str, tokenizer: Any) -> Prompt:
        expand = getattr(self._pipe, "maybe_convert_prompt", None)  # textual inversion: one word, several vectors
        full = expand(text, tokenizer) if expand else text
        ids = tokenizer(full, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
        return Prompt.from_ids(ids, tokenizer, text=text)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value]
