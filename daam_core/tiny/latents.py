"""The training set of the UNet: scenes as latents and token ids, computed once and kept in one safetensors file a size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from .autoencoder import to_signed
from .checkpoint import write_state
from .loop import Generators, Log
from .precision import autocast
from .scenes import SIZE, scene_at
from .text_encoder import with_filler
from .tokenizer import LENGTH

SEED = 1
SCENES = 36_000
TWO = 0.65  # share of scenes with two objects: those are what takes long to learn
FILLER = 0.04  # share of captions with words that mean nothing here
PLACED = 3.0  # times as often as others, scenes are shown whose caption says where things lie: they are a quarter
BARE = 0.6  # share of pictures whose colours only the colour words tell
FILE = "latents.safetensors"
LARGE = 256  # pixels, the other size of pictures
LARGE_FILE = "latents-256.safetensors"
PIXELS = 8  # of a latent, each way


def write_latents(
    path: Path,
    autoencoder: AutoencoderTiny,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    log: Log,
    count: int = SCENES,
    batch: int = 64,
    side: int = SIZE,
) -> None:
    """Render scenes 0 … count - 1 of the training world (no unreal pair among them), `side` pixels each way; encode them."""
    latents = torch.empty(count, 4, side // PIXELS, side // PIXELS, dtype=torch.float16)
    ids = torch.empty(count, LENGTH, dtype=torch.int16)
    objects = torch.empty(count, dtype=torch.uint8)
    for start in range(0, count, batch):
        scenes = [scene_at(SEED, k, two=TWO, side=side) for k in range(start, min(start + batch, count))]
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
            log(f"latents: {end:,} / {count:,} scenes of {side} px")
    spread = latents[:8192].float()
    mean, std = spread.mean((0, 2, 3)).tolist(), spread.std((0, 2, 3)).tolist()
    write_state(path, {"latents": latents, "ids": ids, "objects": objects}, {"mean": mean, "std": std})
    log(f"latents: {count:,} scenes of {side} px, channel means {_short(mean)}, deviations {_short(std)}")


def _short(values: list[float]) -> str:
    return " ".join(f"{v:.2f}" for v in values)


class Batch(NamedTuple):
    """Scenes of one step: clean latents float32 [B, 4, h, w], text states float32 [B, 77, 128].

    `pick` int64 [B] are the scenes' numbers in the cache; `dropped` bool [B] tells whose caption is the empty one.
    """

    latents: torch.Tensor
    context: torch.Tensor
    pick: torch.Tensor
    dropped: torch.Tensor


@dataclass(frozen=True)
class LatentCache:
    """Latents float16 [N, 4, h, w], h = w = 16 of 128 px, 32 of 256; objects uint8 [N]; text states float16 [N, 77, 128].

    `empty` float16 [77, 128] is what the text encoder makes of the empty prompt. `bare`, where there is one, holds the
    states in which only colour words tell a colour; a picture is shown with either. `weights`, where there are any, float
    [N], say how often a scene is shown beside the others.
    """

    latents: torch.Tensor
    objects: torch.Tensor
    context: torch.Tensor
    empty: torch.Tensor
    bare: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    @classmethod
    def load(
        cls, path: Path, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, bare: CLIPTextModel | None = None
    ) -> LatentCache:
        """Read what `write_latents` wrote; each text encoder reads all captions once, where it lies.

        Scenes whose caption says where things lie weigh `PLACED`.
        """
        tensors = load_file(str(path))
        ids = tensors["ids"].long()
        context, empty = text_states(text_encoder, ids), empty_state(text_encoder, tokenizer)
        bare_states = None if bare is None else text_states(bare, ids)
        return cls(tensors["latents"], tensors["objects"], context, empty, bare_states, scene_weights(ids, tokenizer))

    def batch(self, generators: Generators, count: int, singles: bool, drop: float) -> Batch:
        """`count` scenes at random.

        `singles` takes one-object scenes only; `drop` is the share of captions replaced by the empty one, which
        classifier-free guidance needs. Of the others, `BARE` have the `bare` states, where there are any.
        """
        pool = torch.nonzero(self.objects == 1)[:, 0] if singles else torch.arange(len(self.latents))
        if self.weights is None:
            drawn = torch.randint(0, len(pool), (count,), generator=generators.torch)
        else:
            drawn = torch.multinomial(self.weights[pool], count, replacement=True, generator=generators.torch)
        pick = pool[drawn]
        context = self.context[pick]
        dropped = torch.rand(count, generator=generators.torch) < drop
        if self.bare is not None:
            colourless = torch.rand(count, generator=generators.torch) < BARE
            context[colourless] = self.bare[pick[colourless]]
        context[dropped] = self.empty
        return Batch(self.latents[pick].float(), context.float(), pick, dropped)


def placed(ids: torch.Tensor, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Whether each caption says where its things lie: bool [N] of token ids [N, tokens]."""
    words = [tokenizer(word).input_ids[1] for word in ("next", "above", "below")]
    return torch.isin(ids, torch.tensor(words)).any(1)


def scene_weights(ids: torch.Tensor, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """How often each scene is shown beside the others: float32 [N] of token ids [N, tokens], 1 or `PLACED`."""
    return 1.0 + (PLACED - 1.0) * placed(ids, tokenizer).float()


def empty_state(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """The last hidden states of the empty prompt, float16 [77, 128]."""
    return text_states(text_encoder, tokenizer([""], padding="max_length", return_tensors="pt").input_ids)[0]


@torch.no_grad()
def text_states(text_encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states, float16 [N, 77, 128], of token ids [N, 77]. The encoder is frozen, so once is enough."""
    states = torch.empty(*ids.shape, text_encoder.config.hidden_size, dtype=torch.float16)
    text_encoder.eval()
    for start in range(0, len(ids), 256):
        part = ids[start : start + 256].to(text_encoder.device)
        with autocast(text_encoder.device):
            states[start : start + 256] = text_encoder(part).last_hidden_state.half().cpu()
    return states
