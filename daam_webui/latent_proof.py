"""Proof that a call of the model is about the picture that is sampled, and not about another one of the same size."""

from __future__ import annotations

import torch
from torch import Tensor

from daam_core.capture.scaled_latents import are_scaled

OTHER_PICTURE = (
    "Another extension gave the model another picture than the one that is sampled in every call of a step, so nobody can say "
    "what the words did in this one. Switch it off to get heat maps."
)
_PART = 0.01
"""So much of the latent is the sampler's own, value by value, where an extension replaces the rest. Of another picture with the
same start and other noise it is 0.003 at the least noise of Stable Diffusion in bfloat16, and 0.0001 in float16."""


class LatentProof:
    """What one prediction of the sampler is about, told by the latents that the model is given in it.

    ControlNet's *reference_only* shows the model another picture with noise of the same level, before the sampler's own call:
    size, text and rows are alike, and only the latent tells them apart. ControlNet's *inpaint_only* lays the picture that stays
    and new noise around what is painted: that is the picture that is sampled, although the sampler's latent is another there.
    """

    def __init__(self) -> None:
        self._picture: Tensor | None = None

    def holds(self, latent: Tensor, sampled: Tensor) -> bool:
        """Whether a call is about the picture that is sampled. The first such call says which latent the others must have.

        Args:
            latent: what the model is given, `[rows, c, …, h, w]`; channels behind the sampler's own (inpainting) do not count.
            sampled: what the sampler has, `[n, c', …, h, w]` with c' <= c.
        """
        if self._picture is not None:
            return shows_sampled(latent, self._picture)
        if shows_sampled(latent, sampled):
            self._picture = sampled
        elif shows_part(latent, sampled):
            self._picture = latent.detach()[:, : sampled.shape[1]].clone()
        return self._picture is not None


def shows_sampled(latent: Tensor, sampled: Tensor) -> bool:
    """Whether every row of a model's input is one of the sampler's latents, scaled as the host scales them.

    Args:
        latent: what the model is given, `[rows, c, …, h, w]`; channels behind the sampler's own (inpainting) do not count.
        sampled: what the sampler has, `[n, c', …, h, w]` with c' <= c.

    Returns:
        True also where the shapes say nothing: other sizes are told by whoever compares them.
    """
    same = _same_size(latent, sampled)
    return same is None or are_scaled(*same)


def shows_part(latent: Tensor, sampled: Tensor) -> bool:
    """Whether every row of a model's input is one of the sampler's latents in a part of its places, and in one scale.

    Args:
        latent, sampled: as in `shows_sampled`.

    Returns:
        False where the shapes say nothing.
    """
    same = _same_size(latent, sampled)
    if same is None:
        return False
    given, own = same
    rounding = torch.finfo(latent.dtype).eps / 2 if latent.is_floating_point() else 0.0
    return all(float(_part(row, own, rounding).max()) >= _PART for row in given)


def _same_size(latent: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both as float32 `[rows, c, places]`, or None where they are not of one size."""
    if latent.dim() < 3 or sampled.dim() < 3 or not len(sampled):
        return None
    given, own = latent.detach()[:, : sampled.shape[1]].flatten(2), sampled.detach().flatten(2)
    if given.shape[1:] != own.shape[1:]:
        return None
    return given.float(), own.to(given.device).float()


def _part(row: Tensor, own: Tensor, rounding: float) -> Tensor:
    """The share of places at which a row `[c, places]` is each of the latents `[n, c, places]` in one scale: `[n]`.

    Args:
        rounding: how far the cast of a number may take it from itself, as a part of it.
    """
    products, lengths = (row * own).sum(1), own.square().sum(1)
    # Rounding turns a vector by no more than what it takes from one of its numbers; below that, float32 itself is not exact.
    alike = products.square() >= (1 - max(1.01 * rounding**2, 1e-6)) * row.square().sum(0) * lengths
    scales = torch.where(alike & (products > 0), products / lengths, torch.nan)
    common = scales.nanmedian(1, keepdim=True).values
    return ((scales - common).abs() <= (2 * rounding + 1e-4) * common).float().mean(1)
