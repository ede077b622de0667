"""The noise process: Stable Diffusion's schedule with v-prediction (Salimans & Ho, 2022).

x_t = a_t x_0 + s_t e        v_t = a_t e - s_t x_0        a_t^2 + s_t^2 = 1
"""

from __future__ import annotations

from functools import cache

import torch
from diffusers import DPMSolverMultistepScheduler

TRAINING_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def make_scheduler() -> DPMSolverMultistepScheduler:
    """The sampler that the pipeline is saved with: DPM-Solver++(2M), trailing steps, which start at full noise."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )


@cache
def signal_share() -> torch.Tensor:
    """a_t^2 for t = 0 … 999, float32 [1000]."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, 0).float()


def _weights(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    share = signal_share().to(t.device)[t].view(-1, 1, 1, 1)
    return share.sqrt(), (1.0 - share).sqrt()


def noise_to(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t from clean latents and noise, both [B, 4, h, w], at steps `t` int64 [B]."""
    a, s = _weights(t)
    return a * x0 + s * noise


def velocity(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """v_t, what the UNet predicts; same shape as `x0`."""
    a, s = _weights(t)
    return a * noise - s * x0


def clean_from(x_t: torch.Tensor, v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_0 from a noisy latent and its (predicted) velocity."""
    a, s = _weights(t)
    return a * x_t - s * v


def sample_times(generator: torch.Generator, batch: int, tilt: float = 0.75) -> torch.Tensor:
    """Training steps int64 [batch]: stratified over the batch and tilted to high noise, which decides the class."""
    u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (TRAINING_STEPS * u**tilt).long().clamp(0, TRAINING_STEPS - 1)
