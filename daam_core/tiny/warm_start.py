"""Starts a training run from the weights in the package instead of from nothing.

Every stage is taken as finished, with fresh optimisers: a larger budget of images for the UNet goes on from there.
Afterwards the work folder looks as if this project had trained everything in it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from . import autoencoder, segmenter, unet
from . import text_encoder as text
from .checkpoint import module_tensors, write_state
from .load import load_segmenter, load_tiny
from .loop import Log, Recipe, state_file


def start_from_shipped(work: Path, log: Log, weights: Path | None = None) -> None:
    """Put the shipped weights into `work` as states; what is already there stays as it is."""
    pipe = load_tiny(weights=weights)
    judge = load_segmenter(weights=weights)
    if not (work / "autoencoder" / "config.json").exists():
        pipe.vae.save_pretrained(work / "autoencoder")
    _put(work, "text", {"text_encoder": pipe.text_encoder}, text.RECIPE, log)
    _put(work, "decoder", {"decoder": pipe.vae.decoder, "ema-decoder": pipe.vae.decoder}, autoencoder.DECODER_RECIPE, log)
    _put(work, "segmenter", {"segmenter": judge, "ema-segmenter": judge}, segmenter.RECIPE, log)
    _put(work, "unet", {"unet": pipe.unet, "ema-unet": pipe.unet}, unet.RECIPE, log)


def _put(work: Path, name: str, modules: dict[str, torch.nn.Module], spent: Recipe, log: Log) -> None:
    """Write a state that has seen all the images of `spent`."""
    path = state_file(work, name)
    if path.exists():
        return
    tensors = {key: t.clone() for key, t in module_tensors(modules).items()}  # one module may stand under two names
    write_state(path, tensors, {"step": 0, "images": spent.images, "seconds": 0.0})
    log(f"{name}: taken as it ships, {spent.images:,} images")
