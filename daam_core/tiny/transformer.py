"""The transformer inside: a small joint-attention model in Stable Diffusion 3's layout, on the UNet's world.

Picture and words are one sequence in each of four blocks, with weights of their own; the last block drops the words after
its attention, as in Stable Diffusion 3. It predicts the flow of rectified flow (Liu et al., 2022; Esser et al., 2024):

    x_s = (1 - s) x_0 + s e        v = e - x_0        s from 1 (noise) to 0

The latents are the autoencoder's that the UNet has. Attention is never supervised: nothing in the loss looks at a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from diffusers.models.activations import GELU
from diffusers.models.attention_processor import Attention

from . import optim
from .gradient_check import Forward, gradients, lost_gradients
from .latents import LatentCache
from .loop import Generators, Log, Recipe
from .precision import autocast
from .text_encoder import WIDTH as TEXT_WIDTH
from .transformer_shape import BLOCKS, HEAD, LARGEST, PATCH, SHIFT, SIDE, TOKENS, WIDTH

MUON_RATE = 4.0  # Muon's learning rate as a multiple of AdamW's
CAPTION_DROP = 0.1
POOLED_DROP = 0.5  # share of pictures whose pooled vector is zero, so that the words must tell the scene
SINGLE_UNTIL = 0.2  # share of the run that shows one-object scenes only
RECIPE = Recipe(images=400_000, batch=64, peak_rate=2e-3, warm_up=60, constant=0.5, ema=0.998, seed=41)


def make_transformer() -> SD3Transformer2DModel:
    """The transformer with random weights, 9 million parameters.

    Modulations start at zero, so that each block begins as the identity.
    """
    model = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=PATCH,
        in_channels=4,
        out_channels=4,
        num_layers=BLOCKS,
        attention_head_dim=HEAD,
        num_attention_heads=WIDTH // HEAD,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=LARGEST // PATCH,
        qk_norm="rms_norm",
    )
    for name, parameter in model.named_parameters():
        if ".norm1.linear" in name or ".norm1_context.linear" in name or name.startswith("norm_out.linear"):
            parameter.detach().zero_()
    return model


class PlainJointAttention:
    """Joint attention in plain steps.

    For training on a CPU only: the backward pass of the fused kernel is slow there in bfloat16.
    """

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture [B, positions, C] and words [B, tokens, C] -> the same."""

        def heads(x: torch.Tensor, norm: torch.nn.Module | None) -> torch.Tensor:
            x = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return x if norm is None else norm(x)

        x, words = hidden_states, encoder_hidden_states
        q = torch.cat([heads(attn.to_q(x), attn.norm_q), heads(attn.add_q_proj(words), attn.norm_added_q)], 2)
        k = torch.cat([heads(attn.to_k(x), attn.norm_k), heads(attn.add_k_proj(words), attn.norm_added_k)], 2)
        v = torch.cat([heads(attn.to_v(x), None), heads(attn.add_v_proj(words), None)], 2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        # Autocast would compute the softmax in float32 and write four times the memory.
        with torch.autocast(scores.device.type, enabled=False):
            weights = torch.softmax(scores, dim=-1)
        out = torch.matmul(weights, v).transpose(1, 2).flatten(2)
        picture, text = out[:, : x.shape[1]], out[:, x.shape[1] :]
        if not attn.context_pre_only:
            text = attn.to_add_out(text)
        return attn.to_out[0](picture), text


def use_exact_gelu(model: torch.nn.Module) -> None:
    """For training on a CPU: PyTorch's exact GELU, which takes a fifth of the time of the approximation by tanh there.

    The two differ by less than 0.0005, an eighth of what bfloat16 resolves.
    """
    for module in model.modules():
        if isinstance(module, GELU):
            module.approximate = "none"


def noise_levels(generator: torch.Generator, batch: int) -> torch.Tensor:
    """Noise levels s in 0..1, float32 [batch]: stratified over the batch and shifted towards noise."""
    u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return SHIFT * u / (1.0 + (SHIFT - 1.0) * u)


def end_positions(ids: torch.Tensor, end: int) -> torch.Tensor:
    """Index of the first end token of each row of `ids` [N, tokens]: there the pooled vector stands."""
    return (ids == end).int().argmax(1)


@dataclass(frozen=True)
class Conditions:
    """What the transformer reads: text states float32 [B, tokens, 128] and pooled vectors float32 [B, 128]."""

    context: torch.Tensor
    pooled: torch.Tensor


class TransformerStage:
    """Trains the transformer on a latent cache, with the text states of a frozen encoder."""

    name = "transformer"

    def __init__(
        self,
        cache: LatentCache,
        ends: torch.Tensor,
        device: torch.device,
        recipe: Recipe = RECIPE,
        compiled: bool = True,
        log: Log = print,
        single_until: float = SINGLE_UNTIL,
    ) -> None:
        """`ends` int64 [N] are the positions of the end tokens in the cache's text states.

        The first `single_until` of the run shows scenes of one object only: 0 where the weights know them already.
        """
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.cache, self.ends, self.log = recipe, device, cache, ends, log
        self.single_until = single_until
        self.model = make_transformer().to(device)
        self.model.set_attn_processor(PlainJointAttention())
        use_exact_gelu(self.model)
        self.average = make_transformer().to(device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.modules: dict[str, torch.nn.Module] = {"transformer": self.model}
        self.averaged: dict[str, torch.nn.Module] = {"transformer": self.average}
        matrices, others = optim.split(self.model, plain=("pos_embed", "proj_out", "time_text_embed", "norm_out"))
        self.muon = optim.Muon(matrices, lr=1.0)
        self.optimisers: list[torch.optim.Optimizer] = [optim.adamw(others), self.muon]
        self._forward: Forward = torch.compile(self.model) if compiled else self.model
        self._checked = False

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean squared error of the predicted flow, unweighted."""
        optim.set_rate([self.muon], MUON_RATE * self.muon.param_groups[0]["lr"])  # the loop gave it AdamW's
        shown = self.cache.batch(generators, batch, done < self.single_until, drop=CAPTION_DROP)
        x0 = shown.latents.to(self.device)
        ends = torch.where(shown.dropped, 1, self.ends[shown.pick])
        pooled = shown.context[torch.arange(batch), ends]
        pooled[torch.rand(batch, generator=generators.torch) < POOLED_DROP] = 0.0
        given = Conditions(shown.context[:, :TOKENS].contiguous().to(self.device), pooled.to(self.device))
        s = noise_levels(generators.torch, batch).to(self.device)
        noise = torch.randn(x0.shape, generator=generators.torch).to(self.device)
        x_s = torch.lerp(x0, noise, s.view(-1, 1, 1, 1))
        if not self._checked:
            self._check(x_s, s, given, noise - x0)
        error = self._error(self._forward, x_s, s, given, noise - x0)
        loss = error.mean()
        noisy = error[s >= 0.7].mean()
        return loss, {"v error": float(loss.detach()), "at s >= 0.7": float(noisy.detach())}

    def _error(
        self, forward: Forward, x_s: torch.Tensor, s: torch.Tensor, given: Conditions, target: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error of each picture, [B]."""
        with autocast(self.device):
            predicted = forward(
                hidden_states=x_s,
                encoder_hidden_states=given.context,
                pooled_projections=given.pooled,
                timestep=1000.0 * s,
                return_dict=False,
            )[0]
        return F.mse_loss(predicted.float(), target, reduction="none").mean((1, 2, 3))

    def _check(self, *inputs: Any) -> None:
        """Once, on the first batch: the compiled network's gradients are the written one's; else go on without it."""
        self._checked = True
        if self._forward is self.model:
            return
        plain = gradients(self.model, lambda: self._error(self.model, *inputs).mean())
        compiled = gradients(self.model, lambda: self._error(self._forward, *inputs).mean())
        moving = {name: g for name, g in plain.items() if float(g.norm()) > 0.0}  # zero modulations pass none on at first
        if lost := lost_gradients(moving, compiled):
            self.log(
                f"transformer: torch.compile changes the gradient of {len(lost)} of {len(moving)} parameters, the first of "
                f"them {lost[0]}; training goes on without it"
            )
            self._forward = self.model
