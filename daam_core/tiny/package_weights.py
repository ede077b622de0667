"""From trained parts to the folder that ships: a diffusers pipeline in float16 and the segmenter beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import CannotWrite
from .diffusion import make_scheduler
from .segmenter import Segmenter
from .tokenizer import build_tokenizer

PIPELINE = "pipeline"
SEGMENTER = "segmenter.safetensors"


def assemble(
    out: Path,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    autoencoder: AutoencoderTiny,
    segmenter: Segmenter | None,
) -> None:
    """Write `out/pipeline` and `out/segmenter.safetensors`; what was there before is replaced whole or not at all."""
    with swapped(out, PIPELINE) as folder:
        pipe = StableDiffusionPipeline(
            vae=autoencoder,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
        # transformers 5 leaves out vocab.json and merges.txt, which older versions and other hosts read.
        build_tokenizer(folder / "tokenizer")
        tidy_configs(folder)
        if segmenter is not None:
            half = {name: t.half() if t.is_floating_point() else t for name, t in segmenter.state_dict().items()}
            save_file({name: t.contiguous() for name, t in half.items()}, str(folder.parent / SEGMENTER))
            os.replace(folder.parent / SEGMENTER, out / SEGMENTER)


@contextmanager
def swapped(out: Path, name: str) -> Iterator[Path]:
    """A folder to write into that becomes `out/name` when the block is done; an older one is replaced whole or not at all.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=out))
    except OSError as error:
        raise CannotWrite(f"The folder {out} cannot be written: {error.strerror}.") from error
    try:
        yield part / name
        if (out / name).exists():
            os.replace(out / name, part / "old")
        os.replace(part / name, out / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def tidy_configs(folder: Path) -> None:
    """Take out what means nothing on another machine: source folders, and a key that AutoencoderTiny itself warns of."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if config.get("_class_name") == "AutoencoderTiny":
            config.pop("block_out_channels", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
