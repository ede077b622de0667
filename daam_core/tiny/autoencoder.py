"""The autoencoder: an AutoencoderTiny (TAESD's architecture, no norms) that keeps 4 numbers for each 8x8 pixels.

Norms are wrong for flat art: a group norm removes the very mean that is the colour of a plain area. The latents are
trained to zero mean and unit variance in every channel, so that `scaling_factor` is 1 and hosts that read TAESD
files can take them as they are.

Two stages: encoder and decoder together, then (with the encoder frozen and its latents cached) the decoder alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from . import optim
from .loop import Generators, Recipe
from .precision import autocast
from .scenes import scene_at

WIDTH = 32
CROP = 64
SEED_TRAINING, SEED_UNSEEN = 77, 99
RECIPE = Recipe(images=34_000, batch=8, peak_rate=2e-3, warm_up=60, constant=0.35, seed=21)
SHIFT = 0.35  # of latents, which have unit variance
DECODER_RECIPE = Recipe(images=76_000, batch=8, peak_rate=2e-3, warm_up=60, constant=0.2, ema=0.998, seed=22)
# The convolutions that touch pixels or latents stay with AdamW; Muon takes the ones between.
_PLAIN = ("encoder.layers.0.", "encoder.layers.14.", "decoder.layers.0.", "decoder.layers.18.")


def make_autoencoder(width: int = WIDTH) -> AutoencoderTiny:
    """An AutoencoderTiny with `width` channels everywhere and random weights."""
    return AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)


def render(seed: int, count: int, held_out: bool = False) -> torch.Tensor:
    """`count` scenes as uint8 [count, 3, 128, 128]."""
    return torch.stack([torch.from_numpy(scene_at(seed, k, held_out=held_out).image).permute(2, 0, 1) for k in range(count)])


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 -1..1, the range that diffusers hands to an autoencoder."""
    return images.float() / 127.5 - 1.0


def decibels(mean_squared_error: torch.Tensor | float) -> float:
    """Peak signal-to-noise ratio of pictures in -1..1 (peak-to-peak 2)."""
    return float(10.0 * torch.log10(4.0 / torch.as_tensor(mean_squared_error)))


@torch.no_grad()
def quality(autoencoder: AutoencoderTiny, images: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(dB of the mean squared error, latent mean [4], latent std [4]) on uint8 pictures [B, 3, 128, 128]."""
    device = next(autoencoder.parameters()).device
    errors, latents = [], []
    for part in images.split(16):
        x = to_signed(part.to(device))
        z = autoencoder.encode(x).latents
        errors.append(F.mse_loss(autoencoder.decode(z).sample.clamp(-1, 1), x))
        latents.append(z)
    z = torch.cat(latents)
    return decibels(torch.stack(errors).mean()), z.mean((0, 2, 3)), z.std((0, 2, 3))


@torch.no_grad()
def standardise(autoencoder: AutoencoderTiny, images: torch.Tensor) -> None:
    """Fold the latents' measured mean and deviation into the last convolution of the encoder.

    Training leaves them within a few percent of 0 and 1; the first convolution of the decoder takes the opposite
    change (exact but for the decoder's soft clamp, which is nearly the identity there).
    """
    _, mean, std = quality(autoencoder, images)
    last = autoencoder.encoder.layers[-1]
    first = autoencoder.decoder.layers[0]
    last.weight.div_(std.view(-1, 1, 1, 1))
    last.bias.sub_(mean).div_(std)
    first.bias.add_((first.weight * mean.view(1, -1, 1, 1)).sum((1, 2, 3)))
    first.weight.mul_(std.view(1, -1, 1, 1))


def _optimisers(module: torch.nn.Module, plain: tuple[str, ...]) -> list[torch.optim.Optimizer]:
    """Muon brings the autoencoder to a given error in about a third of AdamW's images."""
    matrices, others = optim.split(module, plain)
    return [optim.adamw(others, weight_decay=0.0), optim.Muon(matrices, lr=1.0, weight_decay=0.0)]


class _CropStage:
    """What both stages share: rendered scenes and random crops of them."""

    def __init__(self, autoencoder: AutoencoderTiny, device: torch.device, recipe: Recipe, scenes: int) -> None:
        self.recipe, self.device = recipe, device
        self.autoencoder = autoencoder.to(device, memory_format=torch.channels_last)
        self.pictures = render(SEED_TRAINING, scenes)

    def crops(self, generators: Generators, batch: int) -> torch.Tensor:
        """float32 [batch, 3, 64, 64] in -1..1; corners on the 8-pixel grid of the latents."""
        pick = torch.randint(0, len(self.pictures), (batch,), generator=generators.torch)
        corners = 8 * torch.randint(0, (128 - CROP) // 8 + 1, (batch, 2), generator=generators.torch)
        parts = [
            self.pictures[int(k), :, int(y) : int(y) + CROP, int(x) : int(x) + CROP]
            for k, (y, x) in zip(pick, corners, strict=True)
        ]
        return to_signed(torch.stack(parts)).to(self.device).contiguous(memory_format=torch.channels_last)


class AutoencoderStage(_CropStage):
    """Trains encoder and decoder together."""

    name = "autoencoder"

    def __init__(self, device: torch.device, recipe: Recipe = RECIPE, scenes: int = 3000) -> None:
        torch.manual_seed(recipe.seed)
        super().__init__(make_autoencoder(), device, recipe, scenes)
        self.modules: dict[str, torch.nn.Module] = {"autoencoder": self.autoencoder}
        self.averaged: dict[str, torch.nn.Module] = {}
        self.optimisers = _optimisers(self.autoencoder, _PLAIN)

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Squared and absolute error of noisy latents' pictures, plus the pull towards unit latents."""
        x = self.crops(generators, batch)
        with autocast(self.device):
            z = self.autoencoder.encode(x).latents
            noise = torch.randn(z.shape, generator=generators.torch).to(self.device)
            y = self.autoencoder.decode(z + 0.03 * noise).sample
        z, y = z.float(), y.float()
        squared = F.mse_loss(y, x)
        spread = z.mean((0, 2, 3)).square().sum() + (z.std((0, 2, 3)) - 1.0).square().sum()
        far = F.relu(z.abs() - 2.6).square().mean()  # the decoder's soft clamp saturates at 3
        loss = 2.0 * squared + 0.25 * (y - x).abs().mean() + 0.01 * spread + 0.1 * far
        return loss, {"dB": decibels(squared.detach()), "spread": float(spread.detach())}


class DecoderStage(_CropStage):
    """Trains the decoder alone, the encoder (hence the latent space of the UNet) stays as it is."""

    name = "decoder"

    def __init__(
        self,
        autoencoder: AutoencoderTiny,
        device: torch.device,
        recipe: Recipe = DECODER_RECIPE,
        scenes: int = 4000,
        shift: float = SHIFT,
    ) -> None:
        """`shift` is the largest deviation of errors of whole parts, 0 for none."""
        super().__init__(autoencoder, device, recipe, scenes)
        self.shift = shift
        self.average = make_autoencoder().decoder.to(device)
        self.average.load_state_dict(autoencoder.decoder.state_dict())
        self.average.requires_grad_(False)
        self.modules: dict[str, torch.nn.Module] = {"decoder": self.autoencoder.decoder}
        self.averaged: dict[str, torch.nn.Module] = {"decoder": self.average}
        self.optimisers = _optimisers(self.autoencoder.decoder, ("layers.0.", "layers.18."))

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Squared and absolute error; latents carry the errors of a sampler.

        A little noise at each place, and in half of the crops an error of whole parts of the picture: guidance shifts an
        object's latents by some 0.2, and green lies that near to brown. What surrounds it tells a tree from its trunk.
        """
        x = self.crops(generators, batch)
        with autocast(self.device):
            with torch.no_grad():
                z = self.autoencoder.encode(x).latents
            noise = torch.randn(z.shape, generator=generators.torch)
            noise = noise * 0.05 * torch.rand(batch, 1, 1, 1, generator=generators.torch)
            if self.shift > 0:
                parts = torch.randn(batch, z.shape[1], 2, 2, generator=generators.torch)
                size = torch.rand(batch, 1, 1, 1, generator=generators.torch)
                size = size * (torch.rand(batch, 1, 1, 1, generator=generators.torch) < 0.5)
                noise = noise + self.shift * size * F.interpolate(parts, z.shape[-2:], mode="bilinear")
            y = self.autoencoder.decode(z + noise.to(self.device)).sample.float()
        squared = F.mse_loss(y, x)
        loss = 2.0 * squared + 0.25 * (y - x).abs().mean()
        return loss, {"dB": decibels(squared.detach())}
