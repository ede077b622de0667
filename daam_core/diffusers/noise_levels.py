"""A scheduler that denoises nothing: it shows the model one clean latent at a few levels of noise, high noise first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ..errors import UnsupportedModel
from .quiet import quiet_libraries

Process = Literal["diffusion", "flow"]
"""How a model's training adds noise: x_t = sqrt(a_t) x + sqrt(1 - a_t) e, or x_t = (1 - t) x + t e."""


def process_of(scheduler: Any) -> Process:
    """How the model of a scheduler was trained to take noise away; what it predicts (noise, velocity, picture) is all one.

    Raises:
        UnsupportedModel: a scheduler of neither kind.
    """
    config = getattr(scheduler, "config", {})
    name = type(scheduler).__name__
    if "FlowMatch" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return "flow"
    # EDM's schedulers have betas in no form: their levels are standard deviations.
    if hasattr(scheduler, "alphas_cumprod") and "EDM" not in name:
        return "diffusion"
    raise UnsupportedModel(
        f"{name} adds noise in a way that is not known here, so no picture can be read with it. Known are the schedulers of "
        "Stable Diffusion's kind (with alphas_cumprod) and those of flow matching."
    )


def share_of_noise(process: Process, level: float, scheduler: Any) -> tuple[float, float]:
    """(factor of the clean latent, factor of the noise) at a level of 1000."""
    if process == "flow":
        return 1 - level / 1000, level / 1000
    steps = len(scheduler.alphas_cumprod)
    kept = float(scheduler.alphas_cumprod[min(steps - 1, round(level * steps / 1000))])
    return math.sqrt(kept), math.sqrt(1 - kept)


class _Levels:
    """What both kinds share: timesteps are the levels, and a step's result is the clean latent with the next level's noise."""

    def prepare_reading(self, levels: Sequence[float], process: Process, seed: int) -> None:
        """The levels, in the order in which they are shown."""
        self.levels, self.process = tuple(levels), process
        self._generator = torch.Generator("cpu").manual_seed(seed)  # the same noise on every device
        self._done = 0
        self._clean: Tensor | None = None

    def begin(self, clean: Tensor) -> Tensor:
        """Take the clean latent, in the model's own layout; gives it with the first level's noise."""
        self._clean, self._done = clean, 0
        return self._noisy()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **_: Any,
    ) -> None:
        """The levels, whatever the pipeline asks for."""
        steps = int(self.config.num_train_timesteps)  # type: ignore[attr-defined]
        values = [level * steps / 1000 for level in self.levels]
        whole = self.process == "diffusion"
        self.timesteps = torch.tensor(
            [min(steps - 1, round(t)) for t in values] if whole else values,
            dtype=torch.int64 if whole else torch.float32,
            device=device,
        )
        self.sigmas = torch.tensor([*(level / 1000 for level in self.levels), 0.0], device=device)
        self.num_inference_steps = len(self.levels)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The latent itself: both kinds of model are shown it as it is."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *_: Any, return_dict: bool = True, **__: Any) -> Any:
        """The clean latent with the next level's noise, after the last level without any."""
        self._done += 1
        latent = self._noisy().to(sample.dtype)
        return SimpleNamespace(prev_sample=latent, pred_original_sample=latent) if return_dict else (latent,)

    def _noisy(self) -> Tensor:
        assert self._clean is not None  # `begin` comes first
        if self._done >= len(self.levels):
            return self._clean
        kept, added = share_of_noise(self.process, self.levels[self._done], self)
        noise = torch.randn(self._clean.shape, generator=self._generator).to(self._clean.device)
        return (kept * self._clean.float() + added * noise).to(self._clean.dtype)


class DiffusionLevels(_Levels, DDPMScheduler):
    """Levels of a model of Stable Diffusion's kind."""


class FlowLevels(_Levels, FlowMatchEulerDiscreteScheduler):
    """Levels of a flow matching model."""


def level_scheduler(scheduler: Any, levels: Sequence[float], seed: int) -> Any:
    """A scheduler with the schedule of `scheduler` that shows `levels`. Raises UnsupportedModel where that is not known."""
    process = process_of(scheduler)
    kind = FlowLevels if process == "flow" else DiffusionLevels
    with quiet_libraries():  # another class of scheduler has options that this one passes over
        made = kind.from_config(scheduler.config)
    made.prepare_reading(levels, process, seed)
    return made
