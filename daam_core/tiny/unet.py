"""The UNet and its training: v-prediction on cached latents under the frozen text encoder.

The shape is LDM-compatible (group norm of 32, at least 64 channels, cross-attention at every level), so that ComfyUI
and the WebUIs load it. Attention is never supervised: nothing in the loss looks at a map. Where the coarse cross-attention
looks is set before training, see `start_token`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from . import optim
from .diffusion import noise_to, sample_times, velocity
from .gradient_check import Forward, gradients, lost_gradients
from .latents import LARGE, Batch, LatentCache
from .loop import Generators, Log, Recipe
from .precision import autocast
from .start_token import freeze_coarse_attention
from .text_encoder import WIDTH

LATENT = 16  # side of the latents of a 128 px picture
CHANNELS = (64, 128, 128)
HEADS = (2, 4, 4)
RECIPE = Recipe(images=660_000, batch=48, peak_rate=1e-3, warm_up=150, constant=0.35, ema=0.998, seed=31)
# From trained weights: gentler, and two objects from the first picture on.
WARM_RECIPE = Recipe(images=200_000, batch=48, peak_rate=8e-4, warm_up=40, constant=0.35, ema=0.995, seed=32)
SINGLE_UNTIL = 0.15  # share of the run that shows one-object scenes only
CAPTION_DROP = 0.1
LARGE_SHARE = 1 / 4  # of the steps that show pictures of 256 px, a quarter as many each
TEACHER_UNTIL = 0.5  # share of the run after which a teacher has no part in the target


def make_unet() -> UNet2DConditionModel:
    """The UNet with random weights: 7 million parameters, latents 4x16x16."""
    levels = len(CHANNELS)
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,  # diffusers takes this as the number of heads
        norm_num_groups=32,
    )


class PlainAttention:
    """softmax(q k^T) v in three plain steps.

    For training on a CPU only: the backward pass of the fused kernel is slow there in bfloat16 (40 % of a step).
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """hidden_states [B, pixels, C] -> [B, pixels, C]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        # Autocast would compute the softmax in float32 and write four times the memory.
        with torch.autocast(scores.device.type, enabled=False):
            weights = torch.softmax(scores, dim=-1)
        return attn.to_out[0](torch.matmul(weights, v).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class Teacher:
    """A trained UNet whose predictions are part of the target, and the text states it was trained on.

    `context` is float16 [N, 77, 128], by scene of the cache; `empty` [77, 128] stands for a dropped caption. A warm start
    keeps what its teacher can do while it learns to read other text states. `share` is the teacher's part of the target at
    first; it falls to nothing, because a teacher's own faults are no target.
    """

    unet: UNet2DConditionModel
    context: torch.Tensor
    empty: torch.Tensor
    share: float = 0.5

    def share_at(self, done: float) -> float:
        """The teacher's part of the target where `done` (0..1) of the run is over."""
        return self.share * max(0.0, 1.0 - done / TEACHER_UNTIL)

    @torch.no_grad()
    def velocity(self, x_t: torch.Tensor, t: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Its prediction for a batch, float32 [B, 4, h, w]."""
        context = self.context[batch.pick]
        context[batch.dropped] = self.empty
        with autocast(x_t.device):
            return self.unet(x_t, t, context.to(x_t.device).float(), return_dict=False)[0].float()


class UNetStage:
    """Trains the UNet on a latent cache."""

    name = "unet"

    def __init__(
        self,
        cache: LatentCache,
        device: torch.device,
        recipe: Recipe = RECIPE,
        compiled: bool = True,
        teacher: Teacher | None = None,
        log: Log = print,
        large: LatentCache | None = None,
        singles: float = SINGLE_UNTIL,
    ) -> None:
        """`large` holds pictures of 256 px, which `LARGE_SHARE` of the steps show; the teacher has never seen such.

        One-object scenes alone are shown until `singles` (0..1) of the run are over.
        """
        torch.manual_seed(recipe.seed)
        self.large, self.singles = large, singles
        self.recipe, self.device, self.cache, self.teacher, self.log = recipe, device, cache, teacher, log
        self.unet = make_unet().to(device)
        self.unet.set_attn_processor(PlainAttention())
        freeze_coarse_attention(self.unet)
        self.average = make_unet().to(device).requires_grad_(False)
        self.average.load_state_dict(self.unet.state_dict())
        self.modules: dict[str, torch.nn.Module] = {"unet": self.unet}
        self.averaged: dict[str, torch.nn.Module] = {"unet": self.average}
        matrices, others = optim.split(self.unet, plain=("conv_in", "conv_out", "time_embedding"))
        self.optimisers: list[torch.optim.Optimizer] = [optim.adamw(others), optim.Muon(matrices, lr=1.0)]
        self._compiled = torch.compile(self.unet) if compiled else None
        self._checked = False

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean squared error of the predicted velocity, unweighted.

        Min-SNR weighting starves the high noise that decides the class and the layout of a scene.
        """
        large, teacher = self.large, self.teacher
        if large is not None and generators.numpy.random() < LARGE_SHARE:
            shown, teacher = large.batch(generators, batch // 4, False, drop=CAPTION_DROP), None
        else:
            shown = self.cache.batch(generators, batch, done < self.singles, drop=CAPTION_DROP)
        x0, context = shown.latents.to(self.device), shown.context.to(self.device)
        batch = len(x0)
        t = sample_times(generators.torch, batch).to(self.device)
        noise = torch.randn(x0.shape, generator=generators.torch).to(self.device)
        x_t, target = noise_to(x0, noise, t), velocity(x0, noise, t)
        share = 0.0 if teacher is None else teacher.share_at(done)
        if teacher is not None and share > 0:
            target = torch.lerp(target, teacher.velocity(x_t, t, shown), share)
        if not self._checked:
            self._check(x_t, t, context, target)
        error = self._error(self._compiled or self.unet, x_t, t, context, target)
        loss = error.mean()
        noisy = error[t >= 600].mean()
        if x0.shape[-1] > LATENT:
            return loss, {f"at {LARGE} px": float(loss.detach())}
        return loss, {"v error": float(loss.detach()), "at t >= 600": float(noisy.detach())}

    def _error(
        self, forward: Forward, x_t: torch.Tensor, t: torch.Tensor, context: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of each picture, [B]."""
        with autocast(self.device):
            predicted = forward(x_t, t, context, return_dict=False)[0]
        return F.mse_loss(predicted.float(), target, reduction="none").mean((1, 2, 3))

    def _check(self, *inputs: torch.Tensor) -> None:
        """Once, on the first batch: every parameter learns, and the compiled network's gradients are the written one's.

        Where they are not, the run goes on with the network as it is written.
        """
        self._checked = True
        plain = gradients(self.unet, lambda: self._error(self.unet, *inputs).mean())
        if still := lost_gradients(plain, plain):
            self.log(f"unet: no gradient reaches {len(still)} of {len(plain)} parameters, the first of them {still[0]}")
        if self._compiled is None:
            return
        compiled = self._compiled
        lost = lost_gradients(plain, gradients(self.unet, lambda: self._error(compiled, *inputs).mean()))
        if lost:
            self.log(
                f"unet: torch.compile loses the gradient of {len(lost)} of {len(plain)} parameters, the first of them "
                f"{lost[0]}; training goes on without it"
            )
            self._compiled = None
