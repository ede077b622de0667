"""Starts a training run from the weights in the package instead of from nothing.

Text encoder, autoencoder, decoder and segmenter are taken as finished. The UNet starts with fresh optimisers and a budget
of its own, and keeps the shipped one as a teacher (`unet.Teacher`): the students of the text encoder (`colour_words`) are
new to it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from . import autoencoder, segmenter, unet
from . import text_encoder as text
from .checkpoint import module_tensors, write_state
from .load import load_segmenter, load_tiny
from .loop import Log, state_file

TEACHER = "teacher"


def start_from_shipped(work: Path, log: Log, weights: Path | None = None) -> None:
    """Put the shipped weights into `work` as states; what is already there stays as it is."""
    pipe = load_tiny(weights=weights)
    judge = load_segmenter(weights=weights)
    if not (work / "autoencoder" / "config.json").exists():
        pipe.vae.save_pretrained(work / "autoencoder")
    _put(work, "text", {"text_encoder": pipe.text_encoder}, text.RECIPE.images, log)
    _put(
        work, "decoder", {"decoder": pipe.vae.decoder, "ema-decoder": pipe.vae.decoder}, autoencoder.DECODER_RECIPE.images, log
    )
    _put(work, "segmenter", {"segmenter": judge, "ema-segmenter": judge}, segmenter.RECIPE.images, log)
    _put(work, "unet", {"unet": pipe.unet, "ema-unet": pipe.unet}, 0, log)
    _put(work, TEACHER, {"unet": pipe.unet}, unet.RECIPE.images, log)


def _put(work: Path, name: str, modules: dict[str, torch.nn.Module], images: int, log: Log) -> None:
    """Write a state that has seen `images`."""
    path = state_file(work, name)
    if path.exists():
        return
    tensors = {key: t.clone() for key, t in module_tensors(modules).items()}  # one module may stand under two names
    write_state(path, tensors, {"step": 0, "images": images, "seconds": 0.0})
    log(f"{name}: taken as it ships")
