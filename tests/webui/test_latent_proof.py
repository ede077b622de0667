"""Which calls of a model are about the picture that is sampled: by its latent, whatever the host made of its scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from daam_webui.latent_proof import shows_sampled


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
