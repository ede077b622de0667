"""The segmenter: a small U-shaped network that finds noun and colour of every pixel at full 128x128 resolution.

It learns from exact masks of rendered scenes (unreal pairs included), drawn sharp, decoded by the autoencoder and
noisy, and then tells what a generated picture shows. It never sees the diffusion model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image
from torch import nn

from ..errors import BadArgument
from . import optim
from .autoencoder import to_signed
from .captions import COLOUR_NAMES
from .loop import Generators, Log, Recipe
from .precision import autocast
from .scenes import SIZE, scene_at
from .shapes import NOUNS

RECIPE = Recipe(images=14_000, batch=16, peak_rate=2e-3, warm_up=60, constant=0.3, ema=0.997, seed=41)
SEED = 500
LEAST_SHARE = 0.012  # an object smaller than this share of the picture is taken for a smudge
NO_COLOUR = 255


@dataclass(frozen=True)
class Found:
    """An object in a picture: its noun, its colour by vote of its pixels, its mask bool [128, 128]."""

    noun: str
    colour: str
    mask: torch.Tensor

    @property
    def share(self) -> float:
        """Part of the picture that it covers, 0..1."""
        return float(self.mask.float().mean())


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Segmenter(nn.Module):
    """Pictures [B, 3, 128, 128] in -1..1 -> noun logits [B, 13, 128, 128] (0 is background), colour logits [B, 7, …]."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.down = nn.ModuleList([_block(16, 32), _block(32, 48), _block(48, 72), _block(72, 96)])
        self.up = nn.ModuleList([_block(96 + 72, 72), _block(72 + 48, 48), _block(48 + 32, 32)])
        self.edge = nn.Sequential(nn.Conv2d(32 + 16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Conv2d(24, 1 + len(NOUNS) + len(COLOUR_NAMES), 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of nouns and of colours for every pixel."""
        levels = [self.fine(x)]
        for block in self.down:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        y = levels.pop()
        for block in self.up:
            y = block(torch.cat([F.interpolate(y, scale_factor=2.0), levels.pop()], 1))
        y = self.head(self.edge(torch.cat([F.interpolate(y, scale_factor=2.0), levels.pop()], 1)))
        return y[:, : 1 + len(NOUNS)], y[:, 1 + len(NOUNS) :]

    @torch.no_grad()
    def find(self, pictures: torch.Tensor | Sequence[Image.Image]) -> list[dict[str, Found]]:
        """What each picture shows, by noun.

        `pictures` are PIL images of 128x128 or uint8 [B, 3, 128, 128]. Objects under 1.2 % of the picture are left
        out.
        """
        images = pictures if isinstance(pictures, torch.Tensor) else from_pil(pictures)
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE) or images.dtype != torch.uint8:
            raise BadArgument(
                f"The segmenter takes uint8 pictures [B, 3, {SIZE}, {SIZE}]; got {images.dtype} {list(images.shape)}."
            )
        self.eval()
        results: list[dict[str, Found]] = []
        for part in images.split(32):
            nouns, colours = self(to_signed(part.to(self.head.weight.device)))
            results += [_read(n.cpu(), c.cpu()) for n, c in zip(nouns.float(), colours.float(), strict=True)]
        return results


def from_pil(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """PIL images -> uint8 [B, 3, H, W]."""
    return torch.stack([torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in pictures])


def _read(nouns: torch.Tensor, colours: torch.Tensor) -> dict[str, Found]:
    label = nouns.argmax(0)
    found: dict[str, Found] = {}
    for number, noun in enumerate(NOUNS):
        mask = label == number + 1
        if float(mask.float().mean()) >= LEAST_SHARE:
            vote = colours[:, mask].softmax(0).sum(1)
            found[noun] = Found(noun, COLOUR_NAMES[int(vote.argmax())], mask)
    return found


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over union of two bool masks; 1 when both are empty."""
    union = float((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0


def exact_overlap(net: Segmenter, autoencoder: AutoencoderTiny | None, seed: int, count: int) -> float:
    """Mean IoU against exact masks on unseen scenes, drawn (no autoencoder) or as the autoencoder shows them."""
    scenes = [scene_at(seed, k, two=0.5, held_out=k % 4 == 0) for k in range(count)]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes])
    if autoencoder is not None:
        images = torch.cat([_decoded(autoencoder, part, 0.0, None) for part in images.split(32)])
    values: list[float] = []
    for scene, found in zip(scenes, net.find(images), strict=True):
        for one in scene.objects:
            mask = torch.from_numpy(one.mask)
            values.append(overlap(found[one.noun].mask, mask) if one.noun in found else 0.0)
    return float(np.mean(values))


@torch.no_grad()
def _decoded(
    autoencoder: AutoencoderTiny, images: torch.Tensor, noise: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Pictures (uint8) after a round trip through the autoencoder, with up to `noise` on the latents."""
    device = next(autoencoder.parameters()).device
    with autocast(device):
        z = autoencoder.encode(to_signed(images).to(device)).latents.float()
        amount = noise * torch.rand(len(z), 1, 1, 1, generator=generator)
        z = z + (amount * torch.randn(z.shape, generator=generator)).to(device)
        y = autoencoder.decode(z).sample.float().clamp(-1, 1).cpu()
    return ((y + 1) * 127.5).round().to(torch.uint8)


class SegmenterStage:
    """Trains the segmenter on rendered scenes."""

    name = "segmenter"

    def __init__(self, autoencoder: AutoencoderTiny, device: torch.device, recipe: Recipe, scenes: int, log: Log) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.net = Segmenter().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Segmenter().to(device).requires_grad_(False)
        self.average.load_state_dict(self.net.state_dict())
        self.modules: dict[str, nn.Module] = {"segmenter": self.net}
        self.averaged: dict[str, nn.Module] = {"segmenter": self.average}
        matrices, others = optim.split(self.net, plain=("fine", "head"))
        self.optimisers: list[torch.optim.Optimizer] = [optim.adamw(others), optim.Muon(matrices, lr=1.0)]
        self.images, self.nouns, self.colours = _training_set(autoencoder, scenes)
        log(f"segmenter: {scenes:,} scenes, a third of them as the autoencoder shows them")

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy of nouns over all pixels and of colours over object pixels."""
        pick = torch.randint(0, len(self.images), (batch,), generator=generators.torch)
        x = to_signed(self.images[pick])
        x = x + 0.06 * torch.rand(batch, 1, 1, 1, generator=generators.torch) * torch.randn(x.shape, generator=generators.torch)
        nouns = self.nouns[pick].long().to(self.device)
        colours = self.colours[pick].long().to(self.device)
        with autocast(self.device):
            said_noun, said_colour = self.net(x.to(self.device).contiguous(memory_format=torch.channels_last))
        # Background is 85 % of the pixels: with full weight from the start the net says nothing else for long. With
        # full weight at the end the edges come out where they are.
        weight = torch.ones(1 + len(NOUNS), device=self.device)
        weight[0] = 0.15 + 0.85 * min(1.0, 2.0 * done)
        noun_loss = F.cross_entropy(said_noun.float(), nouns, weight=weight)
        colour_loss = F.cross_entropy(said_colour.float(), colours, ignore_index=NO_COLOUR)
        right = (said_noun.argmax(1) == nouns)[nouns > 0].float().mean()
        named = (said_colour.argmax(1) == colours)[nouns > 0].float().mean()
        return noun_loss + 0.2 * colour_loss, {
            "noun": float(noun_loss.detach()),
            "noun right": float(right),
            "colour right": float(named),
        }


def _training_set(autoencoder: AutoencoderTiny, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures uint8 [N, 3, 128, 128], noun labels and colour labels uint8 [N, 128, 128]."""
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    nouns = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    colours = torch.full((count, SIZE, SIZE), NO_COLOUR, dtype=torch.uint8)
    for k in range(count):
        scene = scene_at(SEED, k, two=0.5, held_out=k % 6 == 0)
        images[k] = torch.from_numpy(scene.image).permute(2, 0, 1)
        for one in scene.objects:
            mask = torch.from_numpy(one.mask)
            nouns[k][mask] = NOUNS.index(one.noun) + 1
            colours[k][mask] = COLOUR_NAMES.index(one.colour)
    generator = torch.Generator().manual_seed(SEED)
    for start in range(2 * count // 3, count, 32):
        images[start : start + 32] = _decoded(autoencoder, images[start : start + 32], 0.15, generator)
    return images, nouns, colours
