"""One recorded picture from a diffusers pipeline, with the settings that the command line and the app share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .attention_trace import AttentionTrace
from .trace import KeptAxis, trace


@dataclass(frozen=True)
class Settings:
    """What a person may choose; None leaves it to the model.

    Attributes:
        seed: same seed, same picture on every device.
        steps: sampling steps.
        size: (height, width) in pixels, multiples of 8.
        guidance: how strictly to follow the prompt; 1 is none.
        negative: what not to paint; its words are recorded, too.
        detail: what to keep apart.
        concepts: what to look for beside the prompt's words, see `trace`.
    """

    seed: int = 0
    steps: int | None = None
    size: tuple[int, int] | None = None
    guidance: float | None = None
    negative: str = ""
    detail: Sequence[KeptAxis] = ()
    concepts: Sequence[str] = ()


def defaults(pipe: Any) -> Settings:
    """What a pipeline does when nobody asks for something else: steps, guidance and size."""
    known: dict[str, Any] = {name: value.default for name, value in inspect.signature(type(pipe).__call__).parameters.items()}
    known |= getattr(pipe, "own_defaults", {})
    unet = getattr(pipe, "unet", None)
    # Pipelines of transformers say it themselves; their models have no size of their own.
    latent = getattr(pipe, "default_sample_size", None) if unet is None else unet.config.sample_size
    side = int(latent or 128) * int(pipe.vae_scale_factor)
    return Settings(steps=int(known["num_inference_steps"]), guidance=float(known["guidance_scale"]), size=(side, side))


def generate_recorded(
    pipe: Any, prompt: str, settings: Settings, on_step: Callable[[int], None] | None = None
) -> tuple[NDArray[np.uint8], AttentionTrace]:
    """The picture as uint8 `[H, W, 3]`, and its recording. `on_step` is called with how many steps are done."""
    options: dict[str, Any] = {}
    if settings.steps:
        options["num_inference_steps"] = settings.steps
    if settings.size:
        options["height"], options["width"] = settings.size
    if settings.guidance is not None:
        options["guidance_scale"] = settings.guidance
    if settings.negative:
        options["negative_prompt"] = settings.negative
    if on_step is not None:
        options["callback_on_step_end"] = _step_callback(on_step)
    # A generator on the CPU gives the same picture on every device.
    options["generator"] = torch.Generator("cpu").manual_seed(settings.seed)
    concepts = list(settings.concepts) or None
    with trace(pipe, keep=settings.detail, negative=bool(settings.negative), concepts=concepts) as recording:
        picture = pipe(prompt, **options).images[0]
    return np.asarray(picture.convert("RGB")), recording


def _step_callback(on_step: Callable[[int], None]) -> Callable[..., dict[str, Any]]:
    def on_step_end(_pipe: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return tensors

    return on_step_end
