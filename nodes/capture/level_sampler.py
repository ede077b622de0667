"""A sampler that paints nothing: it shows the model a clean latent at a few levels of noise, one pass each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...daam_core.errors import NothingRecorded, UnsupportedModel
from ...daam_core.maps.heatmaps import HeatMaps
from .record_options import Options
from .recording_store import Source
from .sampler_hooks import RecordedSampling
from .sampler_listeners import KEY

_READ_ALONE = Source("read picture")
"""Its recordings are handed over at once; no latent finds them."""


def sigmas_of(model: Any, levels: Sequence[float]) -> Tensor:
    """The noise of each level (thousandths of the training) as ComfyUI counts it, and 0 behind them: float32 `[levels + 1]`.

    Raises:
        UnsupportedModel: a model that adds noise in a way that is not known here.
    """
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.CONST):  # flow matching: the level is the share of noise
        values = [level / 1000 for level in levels]
    elif type(sampling).sigma is comfy.model_sampling.ModelSamplingDiscrete.sigma:
        steps = len(sampling.sigmas)
        values = [float(sampling.sigma(torch.tensor(min(steps - 1.0, level * steps / 1000)))) for level in levels]
    else:
        kinds = " and ".join(kind.__name__ for kind in type(sampling).__bases__)
        raise UnsupportedModel(
            f"This model adds noise in a way that is not known here ({kinds}), so no picture can be read with it. Known are "
            "models of Stable Diffusion's kind and those of flow matching."
        )
    return torch.tensor([*values, 0.0])


def read_latent(
    model: Any, latent: Tensor, conditioning: Any, levels: Sequence[float], seed: int, options: Options
) -> tuple[list[HeatMaps], str]:
    """The maps of each picture of a latent, by one pass at each level, and what is missing of them.

    Args:
        model: ComfyUI's MODEL; patches of other nodes on it count, an earlier Record gives way.
        latent: `[pictures, c, …, h, w]` as a VAE encoded it.
        conditioning: of the text, encoded by a recording CLIP.
        levels: high noise first.

    Raises:
        NothingRecorded: the model's attention could not be recorded; the text says why.
        UnsupportedModel: see `sigmas_of`.
    """
    sigmas = sigmas_of(model, levels)
    recorded = model.clone()
    recorded.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    kept = _Kept(options)
    recorded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, kept)
    latent = comfy.sample.fix_empty_latent_channels(recorded, latent)
    sampler = comfy.samplers.KSAMPLER(_shown_at_levels(seed))
    noise = comfy.sample.prepare_noise(latent, seed)
    # At a scale of 1 nobody is asked for a second prompt.
    comfy.sample.sample_custom(recorded, noise, 1.0, sampler, sigmas, conditioning, conditioning, latent, seed=seed)
    if not kept.maps:
        raise NothingRecorded(kept.failure)
    return kept.maps, kept.note


class _Kept(RecordedSampling):
    """A recorded run whose maps are taken from here.

    Attributes:
        maps: of each picture, empty where there are none.
        note: what is missing although there are maps.
        failure: why there are none.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options, _READ_ALONE)
        self.maps: list[HeatMaps] = []
        self.failure = self.note = ""

    def _remember(self, latents: list[Any], maps: list[HeatMaps] | None, failure: str, note: str = "") -> None:
        self.maps, self.failure, self.note = maps or [], failure, note


def _shown_at_levels(seed: int) -> Callable[..., Tensor]:
    """A sampling function of ComfyUI's kind; noise is drawn on the CPU, the same on every device."""

    def sample(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Any = None,
        disable: Any = None,
    ) -> Tensor:
        clean = model.latent_image
        scaled = model.inner_model.inner_model.model_sampling.noise_scaling
        generator = torch.Generator("cpu").manual_seed(seed)
        for i, sigma in enumerate(sigmas[:-1]):
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            x = scaled(sigma, noise, clean)
            denoised = model(x, sigma * x.new_ones(len(x)), **(extra_args or {}))
            if callback is not None:
                callback({"i": i, "denoised": denoised, "x": x, "sigma": sigma, "sigma_hat": sigma})
        return clean

    return sample
