"""Whether a thing is in a picture, by how much better a model denoises the picture when it is told of the thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedModel
from ..picture_input import checked_picture, size_to_read
from ..prompt.concepts import concepts_of
from ..types import Image, Size
from ..validate import checked_levels
from .noise_levels import process_of, share_of_noise
from .picture_latents import normalized, raw_latent

LEVELS = (600.0, 500.0, 400.0, 300.0, 200.0)
"""Levels of noise, of 1000, at which a picture is denoised; below, a text hardly matters any more."""
NEUTRAL = "a picture"
"""What a concept is held against: a text that says nothing of what is in the picture."""
_NEIGHBOURS = 3
_HOTTEST = 0.04
_ROWS = 16


@torch.no_grad()
def presence_by_denoising(
    pipe: Any,
    image: Image | PIL.Image.Image,
    concepts: str | Sequence[str] | Mapping[str, str],
    *,
    noise: Sequence[float] = LEVELS,
    neutral: str = NEUTRAL,
    seed: int = 0,
    size: Size | None = None,
) -> dict[str, float]:
    """How much better a UNet denoises a picture at its best places when it is told of a concept: the exact sibling of
    `maps.presence`, at one row of the model for each concept and level.

    With e_c the squared error of the model's prediction under the text c, mean over channels, a concept scores the mean over
    the best 4 % of places of `sum over levels (e_neutral - e_c)`, errors averaged over 3 x 3 latent positions, divided by
    the mean of `sum over levels e_neutral` over the picture.

    Args:
        pipe: a pipeline with a UNet that is given text.
        image: a PIL picture, or uint8 `[H, W, 3]` RGB.
        concepts: up to 64, as in `trace`.
        noise: levels of noise in thousandths of the model's training, 1..999.
        neutral: the text that a concept is held against.
        seed: same seed, same noise on every device.
        size: (height, width) at which the model is shown the picture; by default the picture's own.

    Returns:
        A score for each concept's label: above 0 where the concept explains a place better than the neutral text. Scores of one
        picture are compared with each other; they are no probabilities.

    Raises:
        BadArgument: no picture, no concepts, or levels or a size that cannot be.
        UnsupportedModel: a pipeline without such a UNet, or whose scheduler's way of adding noise is not known.

    Example:
        >>> from daam_core import load_tiny
        >>> found = presence_by_denoising(load_tiny(), np.full((64, 64, 3), 200, np.uint8), ["house", "tree"], noise=[300])
        >>> sorted(found)
        ['house', 'tree']
    """
    wanted = concepts_of(concepts)
    levels = checked_levels(noise, 1)
    picture = _fitting(pipe, checked_picture(image), size)
    _require_unet(pipe)
    process_of(pipe.scheduler)
    clean = normalized(pipe, raw_latent(pipe, picture)).float()
    texts, extra = _encoded(pipe, [neutral, *(one.text for one in wanted)], (picture.shape[0], picture.shape[1]))
    generator = torch.Generator("cpu").manual_seed(seed)
    errors = torch.zeros(len(texts), *clean.shape[-2:], device=clean.device)
    for level in levels:
        drawn = torch.randn(clean.shape, generator=generator).to(clean)
        errors += _errors(pipe, clean, drawn, level, texts, extra)
    gained = F.avg_pool2d(errors[:1] - errors[1:], _NEIGHBOURS, 1, _NEIGHBOURS // 2, count_include_pad=False)
    gained = gained.flatten(1)
    best = gained.topk(max(1, round(_HOTTEST * gained.shape[1])), 1).values.mean(1)
    scores = best / errors[0].mean().clamp(min=torch.finfo(torch.float32).tiny)
    return {one.label: float(score) for one, score in zip(wanted, scores, strict=True)}


def _errors(pipe: Any, clean: Tensor, drawn: Tensor, level: float, texts: Tensor, extra: Mapping[str, Tensor]) -> Tensor:
    """Squared error of the prediction under each text, mean over channels: `[texts, h, w]`."""
    kept, added = share_of_noise("diffusion", level, pipe.scheduler)
    steps = len(pipe.scheduler.alphas_cumprod)
    t = torch.tensor([min(steps - 1, round(level * steps / 1000))], device=clean.device)
    noisy = kept * clean + added * drawn
    target = {"epsilon": drawn, "v_prediction": kept * drawn - added * clean, "sample": clean}[
        pipe.scheduler.config.prediction_type
    ]
    found = []
    for first in range(0, len(texts), _ROWS):
        rows = texts[first : first + _ROWS]
        given = {name: x[first : first + _ROWS] for name, x in extra.items()}
        options = {"added_cond_kwargs": given} if given else {}
        sample = noisy.to(rows.dtype).expand(len(rows), *noisy.shape[1:])
        predicted = pipe.unet(sample, t, encoder_hidden_states=rows, return_dict=False, **options)[0]
        found.append((predicted.float() - target).square().mean(1))
    return torch.cat(found)


def _encoded(pipe: Any, texts: Sequence[str], size: Size) -> tuple[Tensor, dict[str, Tensor]]:
    """`[texts, columns, dim]`, and SDXL's additional conditions, a row a text."""
    told = pipe.encode_prompt(
        prompt=list(texts), device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if len(told) < 4:  # Stable Diffusion 1 and 2
        return told[0], {}
    states, _, pooled, _ = told
    times = torch.tensor([[*size, 0, 0, *size]], dtype=states.dtype, device=states.device)
    return states, {"text_embeds": pooled, "time_ids": times.expand(len(states), -1)}


def _fitting(pipe: Any, picture: Image, size: Size | None) -> Image:
    """The picture at a size that the model takes: multiples of 64 pixels in latents' whole cells, at least one.

    Raises:
        BadArgument: a size that cannot be.
    """
    asked = picture.shape[:2] if size is None else size_to_read(size)
    height, width = (max(64, round(side / 64) * 64) for side in asked)
    if (height, width) == picture.shape[:2]:
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _require_unet(pipe: Any) -> None:
    """Raises UnsupportedModel, in a sentence, for what is no UNet from noise and text to a picture."""
    name, unet = type(pipe).__name__, getattr(pipe, "unet", None)
    if not isinstance(unet, torch.nn.Module) or not callable(getattr(pipe, "encode_prompt", None)):
        raise UnsupportedModel(f"{name} has no UNet that is given text, so it cannot be asked what is in a picture.")
    if process_of(pipe.scheduler) != "diffusion" or pipe.scheduler.config.get("prediction_type") not in (
        "epsilon",
        "v_prediction",
        "sample",
    ):
        raise UnsupportedModel(f"What the UNet of {name} predicts is not known here, so its error cannot be taken.")
    channels = int(pipe.unet.config.in_channels)
    if channels != int(getattr(pipe.vae.config, "latent_channels", channels)):
        raise UnsupportedModel(
            f"The UNet of {name} takes {channels} channels, more than a latent has: it paints from a picture of its own."
        )
