"""Scores are float32 whatever surrounds them, and equal to the softmax written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from daam_core.attention.joint import add_joint
from daam_core.attention.scores import (
    add_head_sum,
    add_per_head,
    add_self_attention,
    add_step_sums,
    add_weighted_head_sums,
    split_heads,
)

HEADS, N, KEYS, D = 2, 6, 5, 8
Add = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _explicit(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Probabilities in float64, `[heads, n, keys]`."""
    return torch.softmax(q.double() @ k.double().transpose(1, 2) * 0.4, -1)


def _head_sum(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    into = torch.zeros(1, N, KEYS)
    add_head_sum(into, q, k, torch.eye(KEYS)[None], HEADS, 0.4)
    return into, _explicit(q, k).sum(0)[None]


def _per_head(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    into = torch.zeros(HEADS, N, KEYS)
    add_per_head(into, q, k, torch.eye(KEYS)[None], HEADS, 0.4)
    return into, _explicit(q, k)


def _weighted(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    into = torch.zeros(2, 1, N, KEYS)
    add_weighted_head_sums(into, q, k, torch.eye(KEYS)[None], HEADS, 0.4, torch.tensor([[1.0], [9.0]]))
    return into, torch.stack([_explicit(q, k).sum(0)[None], 9 * _explicit(q, k).sum(0)[None]])


def _itself(q: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    into = torch.zeros(1, N, N)
    add_self_attention(into, q, q, HEADS, 0.4)
    return into, _explicit(q, q).sum(0)[None]


def _joint(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    into = torch.zeros(1, N, KEYS)
    add_joint(into, q[None], k[None], torch.eye(KEYS)[None], HEADS, 0.4, slice(0, KEYS))
    return into, _explicit(q, k).sum(0)[None]


@pytest.mark.parametrize("add", [_head_sum, _per_head, _weighted, _itself, _joint])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_around_does_not_reach_the_scores(add: Add, autocast: bool) -> None:
    """A host samples inside autocast: in bfloat16 the sums would be off by more than 1e-3."""
    torch.manual_seed(0)
    q, k = torch.randn(HEADS, N, D) * 2, torch.randn(HEADS, KEYS, D) * 2
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, expected = add(q, k)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_heads_are_split_as_the_model_joined_them() -> None:
    x = torch.randn(3, N, HEADS * D)
    split = split_heads(x, HEADS)
    assert split.shape == (3 * HEADS, N, D)
    assert torch.equal(split[2 * HEADS + 1], x[2, :, D:])


@pytest.mark.parametrize("heads", [1, 5, 6, 24, 25, 60])
@pytest.mark.parametrize("factor", [1.0, 300.0])
def test_heads_of_any_number_are_summed_to_single_precision(heads: int, factor: float) -> None:
    """Few heads, as many as one product adds up, one more; scores whose exponentials a number holds, and others."""
    torch.manual_seed(heads)
    q, k = torch.randn(heads, N, D) * factor, torch.randn(heads, 77, D)
    sums, own, steps = torch.zeros(1, N, 77), torch.zeros(1, N, N), torch.zeros(1, 1, N, 77)
    add_head_sum(sums, q, k, torch.eye(77)[None], heads, 0.4)
    add_step_sums(steps, q[:, None], k, torch.eye(77)[None], heads, 0.4, torch.ones(1, 1))
    add_self_attention(own, q, q, heads, 0.4)
    tolerance = 1e-6 if factor == 1 else 2e-4  # float32 scores of some thousands have four digits behind the point
    for found, expected in [(sums[0], _explicit(q, k)), (steps[0, 0], _explicit(q, k)), (own[0], _explicit(q, q))]:
        torch.testing.assert_close(found.double(), expected.sum(0), rtol=tolerance, atol=tolerance)
