"""The training set of the UNet: scenes as latents and token ids, computed once and kept in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from .autoencoder import to_signed
from .checkpoint import write_state
from .loop import Generators, Log, autocast
from .scenes import scene_at
from .text_encoder import with_filler
from .tokenizer import LENGTH

SEED = 1
SCENES = 36_000
TWO = 0.65  # share of scenes with two objects: those are what takes long to learn
FILLER = 0.04  # share of captions with words that mean nothing here
FILE = "latents.safetensors"


def write_latents(
    path: Path,
    autoencoder: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    log: Log,
    count: int = SCENES,
    batch: int = 64,
) -> None:
    """Render scenes 0 … count - 1 of the training world (no unreal pair among them) and encode them."""
    latents = torch.empty(count, 4, 16, 16, dtype=torch.float16)
    ids = torch.empty(count, LENGTH, dtype=torch.int16)
    objects = torch.empty(count, dtype=torch.uint8)
    for start in range(0, count, batch):
        scenes = [scene_at(SEED, k, two=TWO) for k in range(start, min(start + batch, count))]
        end = start + len(scenes)
        images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes])
        with torch.no_grad(), autocast(device):
            x = to_signed(images.to(device)).contiguous(memory_format=torch.channels_last)
            latents[start:end] = autoencoder.encode(x).latents.half().cpu()
        rng = np.random.default_rng([SEED, start, 7])
        texts = [with_filler(rng, s.caption) if rng.random() < FILLER else s.caption for s in scenes]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        ids[start:end] = tokens.to(torch.int16)
        objects[start:end] = torch.tensor([len(s.objects) for s in scenes], dtype=torch.uint8)
        if end % (batch * 40) == 0:
            log(f"latents: {end:,} / {count:,} scenes")
    spread = latents[:8192].float()
    mean, std = spread.mean((0, 2, 3)).tolist(), spread.std((0, 2, 3)).tolist()
    write_state(path, {"latents": latents, "ids": ids, "objects": objects}, {"mean": mean, "std": std})
    log(f"latents: {count:,} scenes, channel means {_short(mean)}, deviations {_short(std)}")


def _short(values: list[float]) -> str:
    return " ".join(f"{v:.2f}" for v in values)


@dataclass(frozen=True)
class LatentCache:
    """Latents float16 [N, 4, 16, 16], number of objects uint8 [N], text states float16 [N, 77, 128].

    `empty` float16 [77, 128] is what the text encoder says of the empty prompt.
    """

    latents: torch.Tensor
    objects: torch.Tensor
    context: torch.Tensor
    empty: torch.Tensor

    @classmethod
    def load(cls, path: Path, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> LatentCache:
        """Read what `write_latents` wrote; `text_encoder` reads all captions once, where it lies."""
        tensors = load_file(str(path))
        none = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
        context = _read(text_encoder.eval(), tensors["ids"].long())
        return cls(tensors["latents"], tensors["objects"], context, _read(text_encoder, none)[0])

    def batch(self, generators: Generators, count: int, singles: bool, drop: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean latents float32 [count, 4, 16, 16] and text states float32 [count, 77, 128].

        `singles` takes one-object scenes only; `drop` is the share of captions replaced by the empty one, which
        classifier-free guidance needs.
        """
        pool = torch.nonzero(self.objects == 1)[:, 0] if singles else torch.arange(len(self.latents))
        pick = pool[torch.randint(0, len(pool), (count,), generator=generators.torch)]
        context = self.context[pick]
        context[torch.rand(count, generator=generators.torch) < drop] = self.empty
        return self.latents[pick].float(), context.float()


@torch.no_grad()
def _read(text_encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states, float16 [N, 77, 128], of token ids [N, 77]. The encoder is frozen, so once is enough."""
    states = torch.empty(*ids.shape, text_encoder.config.hidden_size, dtype=torch.float16)
    for start in range(0, len(ids), 256):
        part = ids[start : start + 256].to(text_encoder.device)
        with autocast(text_encoder.device):
            states[start : start + 256] = text_encoder(part).last_hidden_state.half().cpu()
    return states
