"""A run of the host that paints nothing: its model is shown a picture at a few levels of noise, one pass each.

Prompt, LoRAs, text encoder, memory and the sampler's own steps are the host's; only what its sampler calls is exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from daam_core.errors import NothingRecorded, UnsupportedModel
from daam_core.types import Image

from .. import sampler_hooks as hook
from ..recording_session import RecordingSession

OTHER_NOISE = (
    "The loaded checkpoint adds noise in a way that is not known here (flow matching), so no picture can be read with it. Load "
    "one of Stable Diffusion 1, 2 or XL."
)
JOB = "daam_lens_read"
LATENT = 8
"""Pixels of a latent position."""
STOPPED = "Reading was stopped before the model had seen the picture at every level of noise."


def pixels_of_model() -> int:
    """The number of pixels that the loaded checkpoint was made for."""
    from modules import shared

    model = shared.sd_model
    if getattr(model, "is_sdxl", False):
        return 1024 * 1024
    if getattr(model, "is_sd2", False) and getattr(model, "parameterization", "") == "v":
        return 768 * 768
    latent = getattr(model, "image_size", None)  # in A1111's configuration of a checkpoint
    return min(512, LATENT * latent) ** 2 if isinstance(latent, int) and latent > 0 else 512 * 512


def progress() -> tuple[int, int]:
    """(levels that the picture was shown at, of how many); (0, 0) while none is read."""
    from modules import shared

    state = shared.state
    return (int(state.sampling_step), int(state.sampling_steps)) if state.job == JOB else (0, 0)


def show(picture: Image, prompt: str, levels: Sequence[float], seed: int, session: RecordingSession) -> None:
    """Show a picture to the loaded model; the session records it as one finished picture.

    Args:
        picture: uint8 `[H, W, 3]`, sides multiples of 64.
        prompt: what is in it, in the host's own syntax.
        levels: thousandths of the training, high noise first.
        seed: of the noise.

    Raises:
        UnsupportedModel: see `OTHER_NOISE`.
        NothingRecorded: somebody stopped it.
    """
    from modules import call_queue, processing, shared

    p = _reading(picture, prompt, levels, seed, session)
    with call_queue.queue_lock, closing(p):
        shared.state.begin(job=JOB)
        hook.open_session(p, session)
        try:
            processing.process_images(p)
            stopped = bool(shared.state.interrupted or shared.state.skipped)
        finally:
            hook.detach()
            hook.open_session(p, None)
            shared.state.end()
            shared.total_tqdm.clear()
    if p.refused is not None:
        raise p.refused
    if stopped or p.shown < len(levels):
        raise NothingRecorded(STOPPED)
    session.take(0, 0, picture, seed, prompt)


def _reading(picture: Image, prompt: str, levels: Sequence[float], seed: int, session: RecordingSession) -> Any:
    from modules import processing, scripts, sd_samplers, sd_samplers_common, shared

    class Reading(processing.StableDiffusionProcessingTxt2Img):  # type: ignore[misc]
        """The host's own run, whose sampler is given a picture."""

        refused: UnsupportedModel | None = None

        def setup_conds(self) -> None:
            session.encode_concepts(self.sd_model)
            session.prove_texts(self)
            super().setup_conds()

        def sample(self, conditioning: Any, unconditional_conditioning: Any, *_: Any, **__: Any) -> Any:
            self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
            try:
                sigmas = sigmas_of(self.sampler.model_wrap, levels)
                clean = self._encoded()
                self.sampler.func = self._shown_at(clean, sigmas)
                image = self.txt2img_image_conditioning(clean)
                self.sampler.sample(self, clean, conditioning, unconditional_conditioning, image_conditioning=image)
            except UnsupportedModel as error:
                self.refused = error  # the host would print it with a traceback
            # What the host is told that it painted: the picture, so that it decodes nothing.
            return processing.DecodedSamples([torch.from_numpy(picture.copy()).permute(2, 0, 1) / 127.5 - 1])

        def _encoded(self) -> Tensor:
            """`[1, 4, h, w]` by the host's own autoencoder, whose encoding draws random numbers."""
            pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
            way = sd_samplers_common.approximation_indexes.get(shared.opts.sd_vae_encode_method)
            weight = next(session.host.unet(self.sd_model).parameters())
            with torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []):
                torch.manual_seed(seed)
                found: Tensor = sd_samplers_common.images_tensor_to_samples(pixels, way, self.sd_model)
            return found

        def _shown_at(self, clean: Tensor, sigmas: Sequence[float]) -> Any:
            def sample(model: Any, x: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None) -> Tensor:
                generator = torch.Generator("cpu").manual_seed(seed)  # the same noise on every device
                latent = clean.to(x)
                for i, sigma in enumerate(sigmas):
                    noisy = latent + sigma * torch.randn(clean.shape, generator=generator).to(x)
                    denoised = model(noisy, sigma * x.new_ones(len(x)), **(extra_args or {}))
                    self.shown = i + 1
                    if callback is not None:
                        known = torch.tensor(sigma)
                        callback({"i": i, "x": noisy, "denoised": denoised, "sigma": known, "sigma_hat": known})
                return latent

            return sample

    height, width = picture.shape[:2]
    p = Reading(
        sd_model=shared.sd_model, prompt=prompt, negative_prompt="", seed=seed % 2**32, steps=len(levels), width=width,
        height=height, cfg_scale=1.0, sampler_name="Euler", do_not_save_samples=True, do_not_save_grid=True,
    )  # fmt: skip
    p.scripts = scripts.ScriptRunner()  # of no script: reForge looks through them without asking whether there are any
    p.shown = 0
    return p


def sigmas_of(denoiser: Any, levels: Sequence[float]) -> list[float]:
    """The standard deviation of the noise at each level, out of the host's own table (one of each step of the training).

    Raises:
        UnsupportedModel: the table is none of Stable Diffusion's kind.
    """
    table = np.asarray(denoiser.sigmas.detach().float().cpu())
    if not (table[:-1] < table[1:]).all() or table[-1] <= 2:
        raise UnsupportedModel(OTHER_NOISE)
    return [float(table[min(len(table) - 1, round(level * len(table) / 1000))]) for level in levels]
