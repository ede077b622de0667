"""Eq. 6's upscaling equals its definition, for every size a picture may have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core.attention.upsample import bicubic
from daam_core.errors import BadArgument


def by_torch(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    one_by_one = (F.interpolate(x[None].float(), size, mode="bicubic", align_corners=False)[0] for x in levels)
    return sum(one_by_one, torch.zeros(()))


def by_formula(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Keys' cubic convolution with a = -0.75 and repeated borders, in float64, one axis after the other."""
    for axis, target in ((1, size[0]), (2, size[1])):
        level = level.movedim(axis, -1)
        n = level.shape[-1]
        at = (torch.arange(target, dtype=torch.float64) + 0.5) * n / target - 0.5
        total = torch.zeros(*level.shape[:-1], target, dtype=torch.float64)
        for k in range(-1, 3):
            tap = at.floor() + k
            d = (at - tap).abs()
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            total += torch.where(d <= 1, near, far) * level[..., tap.long().clamp(0, n - 1)].double()
        level = total.movedim(-1, axis)
    return level


def levels_of(*grids: tuple[int, int], tokens: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(grids))
    return [torch.rand(tokens, h, w, generator=generator) for h, w in grids]


SIZES = [
    ([(64, 64), (32, 32), (16, 16), (8, 8)], (512, 512)),
    ([(33, 40), (17, 20), (9, 10)], (264, 320)),
    ([(33, 40)], (500, 131)),
    ([(16, 16)], (16, 16)),
    ([(16, 16), (8, 8)], (16, 16)),
    ([(40, 30)], (7, 9)),
    ([(40, 30)], (300, 9)),
    ([(1, 1), (2, 3)], (65, 129)),
    ([(5, 1)], (1, 100)),
    ([(64, 64)], (65, 63)),
]


@pytest.mark.parametrize(("grids", "size"), SIZES, ids=str)
def test_equals_the_definition(grids: list[tuple[int, int]], size: tuple[int, int]) -> None:
    levels = levels_of(*grids)
    ours, torchs = bicubic(levels, size), by_torch(levels, size)
    truth = sum((by_formula(level, size) for level in levels), torch.zeros(()))
    assert ours.dtype == torch.float32
    assert ours.shape == (3, *size)
    assert (ours - torchs).abs().max() <= 1e-6 * torchs.abs().max()
    # F.interpolate itself rounds the coordinates of uneven ratios to float32.
    assert (ours - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_precision_settings_of_a_host_change_nothing() -> None:
    """Autocast, "medium" matrix products and inference mode are what hosts switch on."""
    levels = levels_of((16, 16), (8, 8))
    exact = by_torch(levels, (100, 120))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            ours = bicubic(levels, (100, 120))
    finally:
        torch.set_float32_matmul_precision(before)
    assert (ours - exact).abs().max() <= 1e-6 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_come_out_as_float32(dtype: torch.dtype) -> None:
    levels = [x.to(dtype) for x in levels_of((8, 12))]
    ours = bicubic(levels, (64, 96))
    assert ours.dtype == torch.float32
    assert (ours - by_torch(levels, (64, 96))).abs().max() <= 1e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_cell_spoils_only_its_neighbours(bad: float) -> None:
    level = levels_of((16, 16), tokens=2)[0]
    level[0, 8, 8] = bad
    spoilt = ~bicubic([level], (128, 128)).isfinite()
    assert spoilt[0].any()
    assert spoilt[0].float().mean() < 0.1
    assert not spoilt[1].any()


def test_views_and_gradients_come_in_safely() -> None:
    level = levels_of((12, 8))[0]
    turned = level.transpose(1, 2).requires_grad_()
    ours = bicubic([turned], (80, 120))
    assert not ours.requires_grad
    assert torch.allclose(ours, bicubic([level], (120, 80)).transpose(1, 2), atol=1e-6)


def test_no_tokens() -> None:
    assert bicubic([torch.zeros(0, 4, 4)], (8, 8)).shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("levels", "size"),
    [
        ([], (8, 8)),
        ([torch.ones(4, 4)], (8, 8)),
        ([torch.ones(1, 4, 4), torch.ones(2, 4, 4)], (8, 8)),
        ([torch.ones(1, 0, 4)], (8, 8)),
        ([torch.ones(1, 4, 4)], (0, 8)),
        ([torch.ones(1, 4, 4)], (8,)),
    ],
)
def test_wrong_arguments_are_said(levels: list[Tensor], size: tuple[int, int]) -> None:
    with pytest.raises(BadArgument):
        bicubic(levels, size)
