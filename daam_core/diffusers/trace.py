"""`trace(pipe)`: record a diffusers pipeline with a cross-attention UNet while it paints, without touching the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..capture.buffers import StoreOptions
from ..capture.method_hook import MethodHook
from ..capture.recording import Group, Recording
from ..capture.unet_hooks import UNetAttentionHooks
from ..errors import BadArgument, NothingRecorded, UnsupportedModel
from ..maps.heatmaps import Aggregation, HeatMaps
from ..prompt.prompt import Prompt
from ..types import Grid, Size

KeptAxis = Literal["layers", "steps", "heads"]


@dataclass
class _Request:
    """What the pipeline was asked for, as its `encode_prompt` saw it; None where embeddings were given by hand."""

    prompts: list[str] | None
    negatives: list[str] | None
    guided: bool


@dataclass
class _Generation:
    """One call of the pipeline.

    Attributes:
        recording: what was recorded of it, or why nothing was.
        images, size: pictures it makes, (height, width) of each in pixels.
        prompt, negative: the groups of both sides.
        pictures: what the pipeline's image processor gave out.
    """

    recording: Recording
    images: int = 0
    size: Size = (0, 0)
    prompt: Group | None = None
    negative: Group | None = None
    pictures: Any = None


class AttentionTrace:
    """What `trace` gives: `with trace(pipe) as recording: pipe(…)`, then `recording.heat_maps()`, or `for maps in recording`.

    Every call of the pipeline inside the block is a generation of its own; one that fails to be recorded says why and does
    not touch the next.
    """

    def __init__(self, pipe: Any, keep: StoreOptions, negative: bool) -> None:
        unet = getattr(pipe, "unet", None)
        if not isinstance(unet, torch.nn.Module):
            raise UnsupportedModel(
                f"{type(pipe).__name__} has no UNet. DAAM Lens reads the cross-attention of Stable Diffusion 1, 2 and XL."
            )
        self._pipe, self._keep, self._negative = pipe, keep, negative
        self._hooks = UNetAttentionHooks(
            unet, self._on_attention, self._begin_step, self._end_step, self._fail, keep.self_attention
        )
        self._stack = ExitStack()
        self._request: _Request | None = None
        self._generation: _Generation | None = None
        self._generations: list[_Generation] = []
        self._timestep: Any = 0

    @property
    def num_generations(self) -> int:
        """How many calls of the pipeline were seen, those included that could not be recorded."""
        return len(self._generations)

    @property
    def num_images(self) -> int:
        """How many pictures the last generation made: `[recording.heat_maps(i) for i in range(recording.num_images)]`."""
        return self._generations[-1].images if self._generations else 0

    @property
    def failure(self) -> str | None:
        """Why the last generation could not be recorded, None if it was; the picture was made all the same."""
        return (self._generations[-1].recording.failure or None) if self._generations else None

    def __iter__(self) -> Iterator[HeatMaps]:
        """The maps of every picture of the last generation."""
        return (self.heat_maps(image) for image in range(self.num_images))

    def __enter__(self) -> AttentionTrace:
        try:
            self._stack.enter_context(self._hooks)
            self._hook_method(self._pipe, "encode_prompt", self._on_encode_prompt)
            self._hook_method(self._pipe, "maybe_free_model_hooks", lambda *_: self._finish())
            self._hook_method(getattr(self._pipe, "image_processor", None), "postprocess", self._on_postprocess)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def heat_maps(self, image: int = 0, *, generation: int = -1, aggregation: Aggregation = "sum") -> HeatMaps:
        """The maps of one picture.

        Args:
            image: which picture of the generation, from 0.
            generation: which call of the pipeline; the last one by default.
            aggregation: "sum" is Eq. 6; "castorini" is the rule of the castorini/daam package (needs `keep="heads"`).

        Raises:
            NothingRecorded: nothing was sampled inside the trace, or that call could not be recorded (the text says why).
            BadArgument: no such picture or generation.
        """
        if not self._generations:
            raise NothingRecorded(
                "Nothing was recorded: call the pipeline inside `with trace(pipe) as recording:` and let it take a step."
            )
        try:
            chosen = self._generations[generation]
        except IndexError:
            raise BadArgument(f"There is no generation {generation}: {self.num_generations} were recorded.") from None
        maps = chosen.recording.finish(image, chosen.size, _picture(chosen.pictures, image))
        return maps.as_castorini(self._castorini_side()) if aggregation == "castorini" else maps

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
            self._generation = _Generation(Recording(self._keep))
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

    def _start(self, request: _Request, sample: Tensor, context: Tensor) -> _Generation:
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
        return _Generation(recording, images, size, prompt, negative)

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


def trace(
    pipe: Any,
    *,
    keep: KeptAxis | Sequence[KeptAxis] = (),
    negative: bool = False,
    self_attention: bool = True,
) -> AttentionTrace:
    """Record a diffusers pipeline: `with trace(pipe) as recording: pipe("a red house")`, then `recording.heat_maps()`.

    The hooks only read; the picture is bit-identical to the one made without them. They come off when the block ends,
    however it ends. If recording fails, the picture is still made and `recording.failure` says why there is no map.

    Args:
        pipe: StableDiffusion or SDXL pipeline, plain, img2img, inpaint, ControlNet or PAG.
        keep: any of "layers", "steps" and "heads": keep these apart (more memory); heads are kept summed over steps, and
            the aggregation "castorini" needs them.
        negative: record the negative prompt too (`maps.negative`).
        self_attention: record self-attention at one bounded resolution, which refines masks.

    Raises:
        UnsupportedModel: the pipeline has no UNet with cross-attention.
        BadArgument: `keep` names something else.
    """
    axes = (keep,) if isinstance(keep, str) else tuple(keep)
    if unknown := set(axes) - {"layers", "steps", "heads"}:
        raise BadArgument(f"keep is any of 'layers', 'steps' and 'heads', not {sorted(unknown)}.")
    return AttentionTrace(pipe, StoreOptions("layers" in axes, "steps" in axes, "heads" in axes, self_attention), negative)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value]


def _picture(pictures: Any, image: int) -> NDArray[np.uint8] | None:
    """One finished picture as uint8 `[H, W, 3]`, whatever the pipeline's `output_type` was."""
    if pictures is None or image >= len(pictures):
        return None
    one = pictures[image]
    if isinstance(one, Image.Image):
        return np.asarray(one.convert("RGB"))
    values = one.detach().float().cpu().permute(1, 2, 0).numpy() if isinstance(one, Tensor) else np.asarray(one)
    if values.ndim != 3 or values.shape[-1] != 3:
        return None  # output_type="latent"
    return (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
