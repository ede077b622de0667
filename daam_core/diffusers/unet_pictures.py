"""What a pipeline with a UNet paints with, and whether its UNet saw the whole picture."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from ..capture.refused_families import class_names, refused_unet
from ..capture.unet_recording import UNetRecording
from ..errors import NothingRecorded, UnsupportedModel
from ..types import Size
from .outputs import output_pictures

_FINISHED = (
    "To see where words stand in the picture that it made, give that to `read_picture` with a pipeline from text to picture of "
    "the same parts"
)
_NOT_READ = {
    "LEditsPP": f"it is told what to change, by several texts at once, and not what the picture shows. {_FINISHED}",
    "StableDiffusionPix2PixZero": (
        "it paints twice, and the second time from a text that it has changed as numbers, which nobody has words for. "
        f"{_FINISHED}"
    ),
}
"""How the names of pipelines begin whose UNet could be read, and why they are not."""
_SHAPE = 1.02
"""So far a picture's shape may be from that of its latents: sizes are rounded to whole latents."""


def unet_of(pipe: Any) -> Any:
    """What a pipeline paints with, None where that is no UNet; of Stable Cascade it is called the prior."""
    prior = getattr(pipe, "prior", None)
    return prior if type(getattr(prior, "_orig_mod", prior)).__name__ == "StableCascadeUNet" else getattr(pipe, "unet", None)


def require_readable(pipe: Any) -> None:
    """Raises UnsupportedModel, in a sentence, for what has no UNet that is given text."""
    name, unet = type(pipe).__name__, unet_of(pipe)
    if isinstance(pipe, torch.nn.Module):
        raise UnsupportedModel(f"{name} is a model: give the pipeline that it is part of, `trace(pipe)`.")
    if reason := refused_unet(class_names(pipe)):
        raise UnsupportedModel(f"{name} cannot be read: {reason}.")
    if reason := next((reason for start, reason in _NOT_READ.items() if name.startswith(start)), ""):
        raise UnsupportedModel(f"{name} cannot be read: {reason}.")
    if not isinstance(unet, torch.nn.Module):
        raise UnsupportedModel(f"{name} has no UNet and no transformer. DAAM Lens reads pipelines that have one of them.")
    parameters = inspect.signature(type(pipe).__call__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and not {"prompt", "prompt_embeds"} & set(parameters):
        raise UnsupportedModel(f"{name} is given no prompt, so there are no words to make maps of.")


def require_own_texts(pipe: Any) -> None:
    """Raises UnsupportedModel where a pipeline gives its UNet other texts than it encoded, before a call of it."""
    if getattr(pipe, "free_noise_enabled", False):
        raise UnsupportedModel(
            "FreeNoise blends the texts of a video from frame to frame, those of one prompt, too, so that there is no map of "
            "the prompt's words. Paint without it, by `pipe.disable_free_noise()`"
        )


def require_whole(pipe: Any, recording: UNetRecording, output: Any) -> None:
    """The pipeline took steps, and its UNet saw the whole picture in one piece.

    Raises:
        NothingRecorded, UnsupportedModel: it did not.
    """
    name = type(pipe).__name__
    if not recording.recording.num_steps and recording.for_gradients:
        raise NothingRecorded(
            f"{name} asked its UNet for gradients of the latents alone, so nobody can tell which answer painted the picture"
        )
    if not recording.recording.num_steps:
        raise NothingRecorded(
            f"{name} ran, but its UNet was not asked for a step that can be read: it took none, or the model that painted "
            "is another than `pipe.unet`"
        )
    latent = recording.latent_size
    (height, width), area = pixels(latent, pipe), recording.area
    pictures = output_pictures(output)
    if pictures is None or not len(pictures) or not area.whole:
        return
    images = recording.recording.num_images
    if len(pictures) != images:
        raise UnsupportedModel(f"{name} made {len(pictures)} pictures of {images} prompts in a way that is not known")
    seen = shape_of(pictures)
    if seen in ((height, width), latent):
        return
    skewed = not 1 / _SHAPE < (seen[0] * width) / (seen[1] * height) < _SHAPE
    if skewed or (recording.repeats and seen[0] * seen[1] > height * width):
        raise UnsupportedModel(
            f"{name} paints its picture in several views: its UNet saw {width} x {height} pixels of {seen[1]} x {seen[0]}. "
            f"Only one view is read; paint at {width} x {height}"
        )


def pixels(latent: Size, pipe: Any) -> Size:
    """(height, width) of the picture that latents become."""
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    return latent[0] * factor, latent[1] * factor


def shape_of(pictures: Any) -> Size:
    """(height, width) of the first of some pictures, or of their latents."""
    one = pictures[0]
    if hasattr(one, "height"):
        return int(one.height), int(one.width)
    shape = tuple(one.shape)
    return (int(shape[0]), int(shape[1])) if not isinstance(one, torch.Tensor) else (int(shape[-2]), int(shape[-1]))
