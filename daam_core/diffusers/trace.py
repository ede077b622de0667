"""`trace(pipe)`: record a diffusers pipeline with a cross-attention UNet while it paints, without touching the picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..capture.accumulator import Keep, Recorder
from ..capture.method_hook import MethodWatch
from ..capture.recording import picture_run
from ..capture.unet_hooks import Tap
from ..errors import BadArgument, NothingRecorded, UnsupportedModel, recording_failure
from ..maps.heatmaps import HeatMaps
from ..prompt.prompt import Prompt
from ..types import Grid, Layer

logger = logging.getLogger("daam_lens")
DetailAxis = Literal["layers", "steps"]


@dataclass
class _Ask:
    """What the pipeline was asked for, as its `encode_prompt` saw it; None where embeddings were given by hand."""

    prompts: list[str] | None
    negatives: list[str] | None
    guided: bool


@dataclass
class _Run:
    """One call of the pipeline."""

    layers: list[Layer]
    images: int
    size: tuple[int, int]
    prompts: list[Prompt]
    cond: Recorder
    negatives: list[Prompt] = field(default_factory=list)
    uncond: Recorder | None = None
    timesteps: list[Any] = field(default_factory=list)
    pictures: Any = None


class Lens:
    """The recorder's handle: `with trace(pipe) as lens: …`, then `lens.heat_maps()`.

    Attributes:
        runs: how many calls of the pipeline were recorded.
        failure: why recording stopped, if it did; the picture was made all the same.
    """

    def __init__(self, pipe: Any, keep: Keep, negative: bool) -> None:
        unet = getattr(pipe, "unet", None)
        if not isinstance(unet, torch.nn.Module):
            raise UnsupportedModel(
                f"{type(pipe).__name__} has no UNet. DAAM Lens reads the cross-attention of Stable Diffusion 1, 2 and XL."
            )
        self.failure: str | None = None
        self._pipe, self._keep, self._negative = pipe, keep, negative
        self._tap = Tap(unet, self._hear, self._begin_step, self._end_step, self._fail, keep.self_attention)
        self._stack = ExitStack()
        self._ask: _Ask | None = None
        self._run: _Run | None = None
        self._runs: list[_Run] = []

    @property
    def runs(self) -> int:
        return len(self._runs)

    @property
    def images(self) -> int:
        """How many pictures the last run made: `[lens.heat_maps(i) for i in range(lens.images)]`."""
        return self._runs[-1].images if self._runs else 0

    def __enter__(self) -> Lens:
        try:
            self._stack.enter_context(self._tap)
            self._watch(self._pipe, "encode_prompt", self._see_prompt)
            self._watch(self._pipe, "maybe_free_model_hooks", lambda *_: self._finish())
            self._watch(getattr(self._pipe, "image_processor", None), "postprocess", self._see_pictures)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def heat_maps(
        self, image: int = 0, *, run: int = -1, method: Literal["paper", "castorini"] = "paper"
    ) -> HeatMaps:
        """The maps of one picture.

        Args:
            image: which picture of the run, from 0.
            run: which call of the pipeline; the last one by default.
            method: "paper" is Eq. 6; "castorini" is the rule of the castorini/daam package (needs `heads=True`).

        Raises:
            NothingRecorded: nothing was sampled inside the trace, or recording stopped (the text says why).
            BadArgument: no such picture or run.
        """
        if self.failure and run == -1:
            raise NothingRecorded(self.failure)
        if not self._runs:
            raise NothingRecorded(
                "Nothing was recorded: call the pipeline inside `with trace(pipe) as lens:` and let it take a step."
            )
        try:
            chosen = self._runs[run]
        except IndexError:
            raise BadArgument(f"There is no run {run}: {self.runs} were recorded.") from None
        maps = self._side(chosen, chosen.cond, chosen.prompts, image)
        if chosen.uncond is not None:
            maps = maps.with_negative(self._side(chosen, chosen.uncond, chosen.negatives, image))
        return maps.as_castorini(self._castorini_side()) if method == "castorini" else maps

    def _side(self, run: _Run, recorder: Recorder, prompts: list[Prompt], image: int) -> HeatMaps:
        picture = _picture(run.pictures, image)
        times = [float(t) for t in run.timesteps[: recorder.step_count]]
        return HeatMaps.from_run(picture_run(recorder, run.layers, prompts, image, run.size, picture, times))

    def _castorini_side(self) -> int:
        # That package knows two latent sizes: 64 where the model's own picture is 512 or 1024 px, else 96.
        side = int(self._pipe.unet.config.sample_size) * int(self._pipe.vae_scale_factor)
        return 64 if side in (512, 1024) else 96

    # -- what the pipeline tells ------------------------------------------------------------------------------------

    def _watch(self, owner: Any, name: str, seen: Any) -> None:
        if hasattr(owner, name):
            self._stack.callback(MethodWatch(owner, name, seen, self._fail).remove)

    def _see_prompt(self, given: dict[str, Any], result: Any) -> None:
        by_hand = given.get("prompt_embeds") is not None
        prompts = None if by_hand else _texts(given.get("prompt") or given.get("prompt_2") or "")
        by_hand = given.get("negative_prompt_embeds") is not None
        negatives = None if by_hand else _texts(given.get("negative_prompt") or given.get("negative_prompt_2") or "")
        guided = bool(given.get("do_classifier_free_guidance", False))
        self._run, self._ask = None, _Ask(prompts, negatives, guided)

    def _see_pictures(self, _given: dict[str, Any], result: Any) -> None:
        if self._run is not None:
            self._run.pictures = result

    def _finish(self) -> None:
        if self._run is not None:
            for recorder in filter(None, (self._run.cond, self._run.uncond)):
                recorder.release()
        self._run = self._ask = None

    def _fail(self, error: Exception) -> None:
        if self._run is not None:
            self._runs = [run for run in self._runs if run is not self._run]
        self._run = self._ask = None
        self.failure = recording_failure(error)
        logger.warning("%s", self.failure)
        logger.debug("Where recording stopped", exc_info=error)

    # -- what the UNet tells ----------------------------------------------------------------------------------------

    def _begin_step(self, sample: Tensor, timestep: Any, context: Tensor | None) -> None:
        if self._run is None and self._ask is not None and context is not None:
            self._run = self._start(self._ask, sample, context)
            self._runs.append(self._run)
        if self._run is not None:
            # Kept as it came: reading a number off the device now would make the sampler wait.
            self._run.timesteps.append(timestep)

    def _end_step(self) -> None:
        if self._run is None:
            return
        self._run.cond.end_step()
        self._tap.mute_self_attention(but=self._run.cond.self_grid)
        if self._run.uncond is not None:
            self._run.uncond.end_step()

    def _hear(self, index: int, grid: Grid, q: Tensor, k: Tensor, cross: bool) -> None:
        run = self._run
        if run is None:
            return
        layer = self._tap.layers[index]
        if not cross:
            run.cond.add_self(grid, q, k, layer.heads, layer.scale)
            return
        run.cond.add_cross(index, grid, q, k, layer.heads, layer.scale)
        if run.uncond is not None:
            run.uncond.add_cross(index, grid, q, k, layer.heads, layer.scale)

    def _start(self, ask: _Ask, sample: Tensor, context: Tensor) -> _Run:
        perturbed = bool(getattr(self._pipe, "do_perturbed_attention_guidance", False))
        # Rows are stacked as [negative, prompt, perturbed]; the first and the last only where their guidance is on.
        images = sample.shape[0] // (1 + ask.guided + perturbed)
        factor = int(getattr(self._pipe, "vae_scale_factor", 8))
        prompts = self._prompts(ask.prompts, images, context.shape[1])
        self._tap.hear_all()  # an earlier run muted what it had no use for
        rows = slice(images, 2 * images) if ask.guided else slice(0, images)
        run = _Run(
            layers=self._tap.layers,
            images=images,
            size=(sample.shape[2] * factor, sample.shape[3] * factor),
            prompts=prompts,
            cond=Recorder(rows, _selector(prompts), self._keep),
        )
        if self._negative and ask.guided:
            run.negatives = self._prompts(ask.negatives, images, context.shape[1])
            run.uncond = Recorder(slice(0, images), _selector(run.negatives), self._keep)
        return run

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
    detail: DetailAxis | Sequence[DetailAxis] = (),
    heads: bool = False,
    negative: bool = False,
    self_attention: bool = True,
) -> Lens:
    """Record a diffusers pipeline: `with trace(pipe) as lens: pipe("a red house")`, then `lens.heat_maps()`.

    The hooks only read; the picture is bit-identical to the one made without them. They come off when the block ends,
    however it ends. If recording fails, the picture is still made and `lens.failure` says why there is no map.

    Args:
        pipe: StableDiffusion or SDXL pipeline, plain, img2img, inpaint, ControlNet or PAG.
        detail: "layers", "steps" or both: keep these apart (more memory).
        heads: keep the heads apart, summed over steps; needed for `method="castorini"`.
        negative: record the negative prompt too (`maps.negative`).
        self_attention: record self-attention at one bounded resolution, which refines masks.

    Raises:
        UnsupportedModel: the pipeline has no UNet with cross-attention.
        BadArgument: an unknown kind of detail.
    """
    axes = (detail,) if isinstance(detail, str) else tuple(detail)
    if unknown := set(axes) - {"layers", "steps"}:
        raise BadArgument(f"detail is 'layers', 'steps' or both, not {sorted(unknown)}.")
    return Lens(pipe, Keep("layers" in axes, "steps" in axes, heads, self_attention), negative)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value]


def _selector(prompts: list[Prompt]) -> Any:
    """Selections of all pictures, padded with empty rows to the longest prompt: `[images, keys, rows]`."""
    rows = max(prompt.rows for prompt in prompts)

    def select(keys: int, _part: int) -> Tensor:
        each = [prompt.selection(keys) for prompt in prompts]
        return torch.stack([torch.nn.functional.pad(x, (0, rows - x.shape[1])) for x in each])

    return select


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
