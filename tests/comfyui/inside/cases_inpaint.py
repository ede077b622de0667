"""Painting into a picture: the nodes that people use for it, with a plain model and with one made for inpainting."""

from __future__ import annotations

from typing import Any

import graphs
import torch
from cases_nodes import run
from graphs import check, encode, ksampler, node
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes


def _picture(height: int = 128, width: int = 160) -> torch.Tensor:
    """IMAGE `[1, h, w, 3]`."""
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(4))


def _mask(height: int = 128, width: int = 160) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, 32:96, 40:104] = 1
    return mask


def case_vae_encode_for_inpaint() -> None:
    latent = host_nodes.VAEEncodeForInpaint().encode(run("TinyModel")[2], _picture(), _mask(), 6)[0]

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), latent)

    assert check(unet("sd15"), clip("sd15"), sample, PROMPT)[0].size == (128, 160)


def _conditioned(model: Any, encoder: Any) -> torch.Tensor:
    positive, negative, latent = host_nodes.InpaintModelConditioning().encode(
        encode(encoder, PROMPT), encode(encoder, ""), _picture(), run("TinyModel")[2], _mask(), True
    )
    return ksampler(model, positive, negative, latent)


def case_inpaint_model_conditioning() -> None:
    """With a plain model: the extra channels are left out by ComfyUI."""
    check(unet("sd15"), clip("sd15"), _conditioned, PROMPT)


def case_inpaint_model_of_nine_channels() -> None:
    """A model that is given the mask and the masked picture beside the latent."""
    model = unet("sd15_inpaint")
    assert model.model.diffusion_model.in_channels == 9
    check(model, clip("sd15"), _conditioned, PROMPT)


def case_differential_diffusion() -> None:
    soft = torch.linspace(0, 1, 160).expand(1, 128, 160)

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed = node("nodes_differential_diffusion", "DifferentialDiffusion")(model)[0]
        latent = {"samples": torch.randn(1, 4, 16, 20, generator=torch.Generator().manual_seed(2)), "noise_mask": soft}
        return ksampler(changed, encode(encoder, PROMPT), encode(encoder, ""), latent, steps=4)

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_repeated_latent_with_a_batch_of_noise() -> None:
    """RepeatLatentBatch of an encoded picture, painted over at half strength: one run a picture."""
    encoded = host_nodes.VAEEncode().encode(run("TinyModel")[2], _picture())[0]
    latent = host_nodes.RepeatLatentBatch().repeat(encoded, 3)[0]

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), latent, steps=4, denoise=0.5)

    assert len(check(unet("sd15"), clip("sd15"), sample, PROMPT)) == 3


def case_hires_fix_maps() -> None:
    """Both samplers' maps are the equation's, each of its own steps."""

    def small(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(64, 96))

    def large(model: Any, encoder: Any) -> torch.Tensor:
        first = {"samples": small(unet("sd15"), encoder)}
        grown = host_nodes.LatentUpscale().upscale(first, "nearest-exact", 192, 128, "disabled")[0]
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), grown, steps=4, denoise=0.6)

    check(unet("sd15"), clip("sd15"), small, PROMPT)
    assert check(unet("sd15"), clip("sd15"), large, PROMPT)[0].size == (128, 192)
    assert graphs.runs.maps_of(small(unet("sd15"), clip("sd15")))  # the small latent's own run is still there
