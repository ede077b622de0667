"""Which calls of a model are about the picture that is sampled: by its latent, whatever the host made of its scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from daam_webui.latent_proof import LatentProof, shows_part, shows_sampled


def latents(rows: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, *(shape or (4, 64, 64)), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_scaled_and_cast_latent_is_the_samplers(sigma: float, dtype: torch.dtype) -> None:
    sampled = latents(2) * sigma
    given = (sampled / (sigma**2 + 1) ** 0.5).to(dtype)
    assert shows_sampled(torch.cat([given, given]), sampled)


def test_channels_behind_it_do_not_count() -> None:
    sampled = latents(1)
    assert shows_sampled(torch.cat([sampled, latents(1, 5, 64, 64, seed=1)], 1), sampled)


def test_rows_may_stand_in_any_order() -> None:
    sampled = latents(3)
    assert shows_sampled(sampled[[2, 0, 1, 1, 2, 0]], sampled)


@pytest.mark.parametrize("noise", [14.6, 1.0, 0.1])
def test_the_same_picture_under_another_noise_is_another(noise: float) -> None:
    """img2img with its own start as the reference: the latents differ by the noise alone."""
    start = latents(1, seed=7)
    assert not shows_sampled(start + noise * latents(1, seed=1), start + noise * latents(1, seed=2))


def test_one_row_of_another_picture_is_enough() -> None:
    sampled = latents(2)
    assert not shows_sampled(torch.cat([sampled, latents(1, seed=3)]), sampled)


def test_a_negated_latent_is_another() -> None:
    assert not shows_sampled(-latents(1), latents(1))


@pytest.mark.parametrize("given", [(4, 32, 64), (4, 1, 32, 64), (2, 64, 64)], ids=str)
def test_other_shapes_are_not_judged(given: tuple[int, ...]) -> None:
    assert shows_sampled(latents(1, *given, seed=1), latents(1))


def test_a_frame_of_its_own_axis_is_the_same_picture() -> None:
    sampled = latents(1, 16, 8, 8)
    assert shows_sampled(sampled[:, :, None], sampled)
    assert not shows_sampled(latents(1, 16, 1, 8, 8, seed=4), sampled)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_broke_is_not_blamed_on_an_extension(value: float) -> None:
    assert shows_sampled(torch.full((2, 4, 8, 8), value), torch.full((1, 4, 8, 8), value))


@pytest.mark.parametrize("which", ["given", "own"])
def test_an_empty_latent_is_not_the_samplers(which: str) -> None:
    full, empty = latents(2), torch.zeros(2, 4, 64, 64)
    assert not shows_sampled(*((empty, full) if which == "given" else (full, empty)))


# -- a picture that is laid around what is painted ------------------------------------------------------------------------


def painted(sampled: Tensor, sigma: float, share: float) -> Tensor:
    """What ControlNet's inpaint_only gives the model: a picture that stays, with new noise, around a square that is painted."""
    side = round((share * 64 * 64) ** 0.5)
    mask = torch.zeros(64, 64)
    mask[5 : 5 + side, 9 : 9 + side] = 1
    stays = latents(len(sampled), seed=5) + sigma * latents(len(sampled), seed=6)
    return sampled * mask + stays * (1 - mask)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_what_is_painted_may_be_a_part(sigma: float, dtype: torch.dtype, share: float) -> None:
    sampled = latents(2) * (sigma**2 + 1) ** 0.5
    given = (painted(sampled, sigma, share) / (sigma**2 + 1) ** 0.5).to(dtype)
    proof = LatentProof()
    assert not shows_sampled(given, sampled)
    assert proof.holds(torch.cat([given, given]), sampled)
    assert proof.holds(given, sampled), "the other side may be asked for in a call of its own"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("noise", [14.6, 1.0, 0.1, 0.03])
def test_the_same_picture_under_another_noise_is_no_part(noise: float, dtype: torch.dtype) -> None:
    start = latents(1, seed=7)
    given, sampled = start + noise * latents(1, seed=1), start + noise * latents(1, seed=2)
    assert not shows_part(given.to(dtype), sampled)
    proof = LatentProof()
    assert not proof.holds(given.to(dtype), sampled) and proof.holds(sampled.to(dtype), sampled)


@pytest.mark.parametrize("first", ["whole", "part"])
def test_after_the_pictures_own_call_a_part_of_it_is_another(first: str) -> None:
    """Self-attention guidance shows the model the picture once more, blurred in a part, behind the sampler's own call."""
    sampled = latents(1)
    own = sampled if first == "whole" else painted(sampled, 1.0, 0.5)
    blurred = own.clone()
    blurred[..., 30:, 30:] = latents(1, seed=8)[..., 30:, 30:]
    assert shows_part(blurred, sampled)
    proof = LatentProof()
    assert proof.holds(own, sampled) and not proof.holds(blurred, sampled) and proof.holds(own, sampled)


def test_a_part_in_another_scale_is_another() -> None:
    """Places that are alike by chance or by themselves have no scale in common."""
    sampled = latents(1)
    scales = torch.linspace(0.1, 3, 64 * 64).reshape(64, 64)
    assert not shows_part(sampled * scales, sampled)


def test_one_row_that_shows_no_part_is_enough() -> None:
    sampled = latents(2)
    assert not shows_part(torch.cat([painted(sampled, 1.0, 0.5), latents(1, seed=3)]), sampled)
