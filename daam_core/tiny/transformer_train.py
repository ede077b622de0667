"""Trains the transformer inside: scenes as latents, a student of the text encoder, `transformer.TransformerStage`, the folder.

It reads what the text encoder of the UNet inside says and paints in its autoencoder's latents, so both are taken as they ship.
In half of the pictures it reads the student `bare` instead (see `colour_words`), where only colour words tell a colour.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import BadArgument
from . import checkpoint, colour_words, latents, transformer
from .load import load_tiny
from .loop import Log, make_work_folder, require_counts, state_file, train_stage
from .transformer_pipeline import assemble_transformer, save_transformer

FILE = "transformer-latents.safetensors"
ENCODER = "transformer-text"
SCENES = 24_000
READ = 32  # tokens of a caption that are read; the longest of them has 27


@dataclass(frozen=True)
class TransformerSettings:
    """The settings of a training run.

    `work` holds state and cache and may be gone on with; `out` (default `WORK/weights`) receives `transformer/`. `images` is
    how many pictures are seen in all, `scenes` how many different ones, `scale` multiplies both. `weights` holds the UNet whose
    text encoder and autoencoder are taken. `from_shipped` starts an empty work folder from the transformer that lies there,
    with fresh optimisers and a budget of its own. Training stands still while a file `pause` exists.
    """

    work: Path
    out: Path | None = None
    device: str = "cpu"
    images: int | None = None
    scenes: int | None = None
    scale: float = 1.0
    compiled: bool = True
    pause: Path | None = None
    weights: Path | None = None
    from_shipped: bool = False

    def check(self) -> None:
        """Raises BadArgument where a number makes no sense."""
        require_counts(images=self.images, scenes=self.scenes)
        if self.scale <= 0:
            raise BadArgument(f"The scale must be above 0, got {self.scale}.")


def train_transformer(settings: TransformerSettings, log: Log) -> Path:
    """Train until the budget of images is spent, and write the folder; returns its path.

    Raises:
        BadArgument: a number makes no sense.
        CannotWrite: a folder cannot be made.
    """
    settings.check()
    make_work_folder(settings.work)
    device = torch.device(settings.device)
    pipe = load_tiny(weights=settings.weights)
    path = settings.work / FILE
    if not path.exists():
        count = settings.scenes or max(64, round(SCENES * settings.scale))
        latents.write_latents(path, pipe.vae.to(device), pipe.tokenizer, device, log, count)
    _start(settings, pipe.text_encoder, log)
    cached = load_file(str(path))
    ids = cached["ids"].long()[:, :READ]
    cache = latents.LatentCache(
        cached["latents"],
        cached["objects"],
        latents.text_states(pipe.text_encoder, ids),
        latents.empty_state(pipe.text_encoder, pipe.tokenizer)[:READ],
        latents.text_states(_bare(settings, pipe.text_encoder, pipe.tokenizer, device, log), ids),
        latents.scene_weights(ids, pipe.tokenizer),
    )
    recipe = transformer.RECIPE.scaled(settings.scale)
    if settings.images is not None:
        recipe = replace(recipe, images=settings.images)
    ends = transformer.end_positions(ids, pipe.tokenizer.eos_token_id)
    singles = 0.0 if settings.from_shipped else transformer.SINGLE_UNTIL  # shipped weights know one object
    stage = transformer.TransformerStage(cache, ends, device, recipe, settings.compiled, log, singles)
    train_stage(stage, settings.work, log, pause=settings.pause)
    out = settings.out or settings.work / "weights"
    whole = assemble_transformer(trained_transformer(settings.work), pipe.text_encoder, pipe.tokenizer, pipe.vae.cpu())
    save_transformer(whole, out)
    log(f"transformer: {out}")
    return out


def _start(settings: TransformerSettings, encoder: CLIPTextModel, log: Log) -> None:
    """Keep the text encoder that a work folder began with, and give `encoder` its weights: the package's may change."""
    kept = state_file(settings.work, ENCODER)
    if kept.exists():
        checkpoint.load_modules({ENCODER: encoder}, checkpoint.read_state(kept)[0])
        return
    if settings.from_shipped:
        shipped = load_tiny("transformer", weights=settings.weights)
        tensors = checkpoint.module_tensors({"transformer": shipped.transformer, "ema-transformer": shipped.transformer})
        facts = {"step": 0, "images": 0, "seconds": 0.0}
        path = state_file(settings.work, transformer.TransformerStage.name)
        checkpoint.write_state(path, {key: t.clone() for key, t in tensors.items()}, facts)
        log("transformer: taken as it ships")
    checkpoint.write_state(kept, checkpoint.module_tensors({ENCODER: encoder}), {})


def _bare(
    settings: TransformerSettings, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, device: torch.device, log: Log
) -> CLIPTextModel:
    """The student `bare` of a work folder, float32 and frozen; trained where there is none."""
    recipe = colour_words.RECIPE.scaled(settings.scale)
    stage = colour_words.ColourWordStage(copy.deepcopy(encoder), tokenizer, device, recipe)
    train_stage(stage, settings.work, log, pause=settings.pause)
    return stage.bare.eval().requires_grad_(False)


def trained_transformer(work: Path) -> torch.nn.Module:
    """The averaged transformer of a work folder, float32."""
    path = state_file(work, transformer.TransformerStage.name)
    if not path.exists():
        raise BadArgument(f"{work} holds no trained transformer; run 'daam-lens tiny train-transformer' first.")
    model = transformer.make_transformer()
    checkpoint.load_modules({"ema-transformer": model}, checkpoint.read_state(path)[0])
    return model.eval().requires_grad_(False)
