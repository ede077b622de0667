"""Where pictures are made for a study: one model, loaded when the first picture is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..diffusers.attention_trace import AttentionTrace
from ..diffusers.loading import load_pipeline
from ..diffusers.reading import read_picture
from ..diffusers.trace import KeptAxis, trace
from ..errors import BadArgument, UnsupportedModel
from ..maps.heatmaps import Aggregation, HeatMaps

NOISE_LEVELS = (900, 800, 700, 600, 500, 400, 300, 200, 100)
"""Training steps (of 1000) at which an existing picture is noised and denoised one step."""


@dataclass(frozen=True)
class Sample:
    """One picture and who painted it.

    Attributes:
        image: uint8 `[H, W, 3]`.
        paper: the maps by the paper's Eq. 6.
        castorini: the maps by the castorini package's rule; only of a UNet whose heads were kept.
        aggregation: which of `AGGREGATIONS` the study was asked for (`--aggregation`).
    """

    image: NDArray[np.uint8]
    paper: HeatMaps
    castorini: HeatMaps | None
    aggregation: Aggregation
    prompt: str
    seed: int

    @property
    def maps(self) -> HeatMaps:
        """The maps by the rule that `--aggregation` names."""
        if self.aggregation == "sum":
            return self.paper
        if self.aggregation != "castorini":
            return self.paper.aggregate(self.aggregation)
        assert self.castorini is not None  # `ModelRunner` keeps the heads whenever this rule is asked for
        return self.castorini


class ModelRunner:
    """The model of a study. Making one costs nothing: weights are read when `pipe` is first used.

    Args:
        model: "tiny", "tiny-transformer", a folder in diffusers' format, or a name on the hub.
        device: as in `load_pipeline`.
        aggregation: what `Sample.maps` are, a name of `AGGREGATIONS`.
        how: arguments of every call of the pipeline (num_inference_steps, guidance_scale, height, width).
        threads: CPU threads of this process. One thread gives the same rows on any number of cores.

    Attributes:
        output_space: whether what the attention gives out is recorded, too.
    """

    def __init__(
        self,
        model: str = "tiny",
        device: str | None = None,
        aggregation: Aggregation = "sum",
        how: dict[str, Any] | None = None,
        threads: int | None = 1,
    ) -> None:
        self.model, self.device, self.aggregation = model, device, aggregation
        self.how = dict(how or {})
        self.threads = threads
        self.output_space = aggregation in ("output", "anchor")

    @cached_property
    def pipe(self) -> Any:
        """The pipeline. Raises UnsupportedModel, MissingPackage."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = load_pipeline(self.model, self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def where(self) -> str | None:
        """The device that the model is on, once it is loaded."""
        return str(self.pipe.device) if "pipe" in vars(self) else None

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of all weights (names, shapes, values), the same for the same model in any folder."""
        total = hashlib.sha256()
        for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer", "vae"):
            module = getattr(self.pipe, part, None)
            if isinstance(module, torch.nn.Module):
                for name, tensor in sorted(module.state_dict().items()):
                    total.update(f"{part}.{name}{list(tensor.shape)}{tensor.dtype}".encode())
                    total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def picture(
        self,
        prompt: str,
        seed: int,
        *,
        keep: Sequence[KeptAxis] = (),
        noise_from: Literal["cpu", "device"] = "cpu",
        **how: Any,
    ) -> Sample:
        """Generate a picture and record it.

        Args:
            prompt, seed: what, and which noise to begin with (drawn on the CPU: the same noise on every device).
            keep: any of "layers", "steps" and "heads": keep these apart; `Sample.castorini` needs heads.
            noise_from: where that noise is drawn; "device" for seeds of programs that draw it on the card.
            how: further arguments of the pipeline for this call.

        Raises:
            NothingRecorded: recording failed; the text says why.
        """
        generator = torch.Generator("cpu" if noise_from == "cpu" else self.pipe.device).manual_seed(seed)
        arguments = {**self.how, **how, "generator": generator}
        keep = self._kept(keep)
        with warnings.catch_warnings(), self._trace(keep) as recording:
            warnings.simplefilter("ignore")
            self.pipe(prompt, **arguments)
        return self._sample(recording, keep, None, prompt, seed)

    @torch.no_grad()
    def denoised(
        self,
        image: NDArray[np.uint8],
        caption: str,
        seed: int,
        *,
        keep: Sequence[KeptAxis] = (),
        levels: Sequence[int] = NOISE_LEVELS,
        concepts: Sequence[str] | None = None,
    ) -> Sample:
        """Record a picture that exists already: noised to each of `levels` and denoised one step each, with its caption.

        Args:
            image: uint8 `[H, W, 3]`, sides multiples of what the model's autoencoder takes.
            levels: training steps 0..999; each counts as a step of the recording, high noise first.
            concepts: what to look for beside the caption's words.

        Raises:
            BadArgument: the picture's sides do not fit the model.
            UnsupportedModel: a model whose way of adding noise is not known.
        """
        pipe = self.pipe
        if getattr(pipe, "unet", None) is None:  # the same one step at each level, by the pipeline's own call
            maps = read_picture(
                pipe, image, caption, noise=levels, seed=seed, keep=keep, concepts=concepts, output_space=self.output_space
            )
            return Sample(image, maps, None, self.aggregation, caption, seed)
        factor = int(getattr(pipe, "vae_scale_factor", 8))
        height, width = image.shape[:2]
        if image.ndim != 3 or image.shape[2] != 3 or height % factor or width % factor:
            raise BadArgument(f"A picture to be denoised is [H, W, 3] with sides a multiple of {factor}, not {image.shape}.")
        keep = self._kept(keep)
        latent = _latent(pipe, image)
        noise_to = _noiser(pipe)
        generator = torch.Generator("cpu").manual_seed(seed)
        with self._trace(keep, concepts) as recording:
            context, extra = _condition(pipe, caption, (height, width))
            for level in levels:
                t = torch.tensor([level], device=latent.device)
                noise = torch.randn(latent.shape, generator=generator).to(latent)
                pipe.unet(noise_to(latent, noise, t), t, encoder_hidden_states=context, **extra)
            pipe.maybe_free_model_hooks()
        return self._sample(recording, keep, image, caption, seed)

    def _trace(self, keep: Sequence[KeptAxis], concepts: Sequence[str] | None = None) -> AttentionTrace:
        return trace(self.pipe, keep=keep, concepts=concepts, output_space=self.output_space)

    def _kept(self, keep: Sequence[KeptAxis]) -> Sequence[KeptAxis]:
        if self.aggregation == "castorini" and getattr(self.pipe, "unet", None) is None:
            raise BadArgument(
                f"castorini's rule is one of UNets; {self.model} has a transformer. Leave out --aggregation castorini."
            )
        return keep if self.aggregation != "castorini" or "heads" in keep else (*keep, "heads")

    def _sample(
        self, recording: AttentionTrace, keep: Sequence[KeptAxis], image: NDArray[np.uint8] | None, prompt: str, seed: int
    ) -> Sample:
        paper = recording.heat_maps()
        if image is not None:
            paper = dataclasses.replace(paper, picture=image)
        other = (
            dataclasses.replace(recording.heat_maps(aggregation="castorini"), picture=paper.picture)
            if "heads" in keep and getattr(self.pipe, "unet", None) is not None
            else None
        )
        picture = paper.picture
        assert picture is not None
        return Sample(picture, paper, other, self.aggregation, prompt, seed)


def _latent(pipe: Any, image: NDArray[np.uint8]) -> torch.Tensor:
    """The scaled latent of a picture: `[1, 4, h, w]` on the model's device."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(pipe.device, pipe.vae.dtype) / 127.5 - 1
    coded = pipe.vae.encode(pixels)
    latent: torch.Tensor = coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode()
    shift = getattr(pipe.vae.config, "shift_factor", None) or 0.0
    return ((latent - shift) * pipe.vae.config.scaling_factor).to(pipe.unet.dtype)


def _noiser(pipe: Any) -> Any:
    """`noisy(latent, noise, t)`: the plain forward process of the model's own schedule."""
    from diffusers import DDPMScheduler

    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise UnsupportedModel(f"{type(pipe.scheduler).__name__} has no noise schedule of Stable Diffusion's kind.")
    return DDPMScheduler.from_config(pipe.scheduler.config).add_noise


def _condition(pipe: Any, caption: str, size: tuple[int, int]) -> tuple[torch.Tensor, dict[str, Any]]:
    """What the UNet is told of the caption, and SDXL's additional conditions."""
    told = pipe.encode_prompt(prompt=caption, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    if len(told) < 4:  # Stable Diffusion 1 and 2
        return told[0], {}
    context, _, pooled, _ = told
    times = torch.tensor([[*size, 0, 0, *size]], dtype=context.dtype, device=context.device)
    return context, {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": times}}
