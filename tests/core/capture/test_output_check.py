"""Whether an attention gave out what its queries and keys give, against softmax written out in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.capture.attention_call import AttentionCall, from_comfyui
from daam_core.capture.output_check import QUERIES, ExpectedOutput, expected_output

BATCH, HEADS, N, KEYS, D = 2, 4, 40, 12, 8
PACKED, APART, GROUPED = "heads side by side", "heads apart", "two heads to a key head"


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _tensors(key_heads: int = HEADS) -> tuple[Tensor, Tensor, Tensor]:
    """q `[batch, heads, n, d]`, k and v `[batch, key heads, keys, d]`."""
    q = _random(BATCH, HEADS, N, D, seed=1) * 2
    return q, _random(BATCH, key_heads, KEYS, D, seed=2), _random(BATCH, key_heads, KEYS, D, seed=3)


def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """float64 `[batch, heads, n, d]`: one query, one head at a time."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            own = k[row, head // group].double()
            scores = temperature * (q[row, head].double() @ own.T) / q.shape[-1] ** 0.5
            scores = scores if bias is None else scores + bias[row, 0].double()
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            out[row, head] = (weights / weights.sum(-1, keepdim=True)) @ v[row, head // group].double()
    return out


def _side_by_side(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _expected(layout: str = APART, mask: Tensor | None = None, offset: int = 0) -> tuple[ExpectedOutput, AttentionCall]:
    q, k, v = _tensors(HEADS // 2 if layout == GROUPED else HEADS)
    options: dict[str, Any] = {} if layout == PACKED else {"skip_reshape": True}
    if layout == PACKED:
        q, k, v = map(_side_by_side, (q, k, v))
    call = from_comfyui((q, k, v, HEADS, mask), options)
    return expected_output(call, v, range(BATCH), offset), call


def _mask() -> Tensor:
    mask = torch.zeros(BATCH, 1, 1, KEYS)
    mask[0, ..., 5:] = -torch.inf
    mask[1, ..., :3] = -1.5
    return mask


@pytest.mark.parametrize("layout", [PACKED, APART, GROUPED])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_expected_is_the_softmax_of_the_scores_and_its_slope(layout: str, masked: bool) -> None:
    mask = _mask() if masked else None
    expected, _ = _expected(layout, mask, offset=3)
    tensors = _tensors(HEADS // 2 if layout == GROUPED else HEADS)
    queries = [(i * N // QUERIES + 3) % N for i in range(QUERIES)]
    assert expected.queries.tolist() == queries
    true = _attended(*tensors, mask)[:, :, queries]
    torch.testing.assert_close(expected.output.double(), true, rtol=1e-5, atol=1e-6)
    step = 1e-4
    higher, lower = (_attended(*tensors, mask, temperature=1 + sign * step)[:, :, queries] for sign in (1, -1))
    torch.testing.assert_close(expected.slope.double(), (higher - lower) / (2 * step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [PACKED, APART, GROUPED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_honest_output_passes_in_every_shape_and_precision(layout: str, dtype: torch.dtype) -> None:
    expected, _ = _expected(layout, _mask())
    true = _attended(*_tensors(HEADS // 2 if layout == GROUPED else HEADS), _mask()).to(dtype)
    for given in (true, _side_by_side(true), 0.7 * true):
        assert expected.fits(given)
        assert bool(expected.alike(given))


def test_another_temperature_mask_key_or_value_does_not_pass() -> None:
    expected, _ = _expected()
    q, k, v = _tensors()
    other = {
        "colder": _attended(q, k, v, temperature=1.5),
        "warmer": _attended(q, k, v, temperature=0.6),
        "masked": _attended(q, k, v, _mask()),
        "keys in another order": _attended(q, k.flip(2), v),
        "queries of another row": _attended(q.flip(0), k, v),
        "other values": _attended(q, k, v.flip(2)),
        "something added": _attended(q, k, v) + 0.3 * _random(BATCH, HEADS, N, D, seed=9),
        "the opposite": -_attended(q, k, v),
        "nothing": torch.zeros(BATCH, HEADS, N, D),
    }
    assert bool(expected.alike(_attended(q, k, v)))
    assert [name for name, given in other.items() if bool(expected.alike(given))] == []


def test_a_temperature_shows_where_nearly_all_attention_is_on_one_key() -> None:
    """There the output hardly moves, and the difference alone stays below a kernel's rounding."""
    q, k, v = _tensors()
    q = q * 6
    expected = expected_output(from_comfyui((q, k, v, HEADS), {"skip_reshape": True}), v, range(BATCH))
    true, hotter = _attended(q, k, v), _attended(q, k, v, temperature=1.5)
    assert float((hotter - true).norm() / true.norm()) < 0.15
    assert bool(expected.alike(true.to(torch.bfloat16)))
    assert not bool(expected.alike(hotter))


def test_a_query_that_may_attend_to_nothing_says_nothing() -> None:
    mask = torch.zeros(BATCH, 1, N, KEYS)
    mask[:, :, 5] = -torch.inf
    q, k, v = _tensors()
    expected = expected_output(from_comfyui((q, k, v, HEADS, mask), {"skip_reshape": True}), v, range(BATCH), offset=5)
    assert not bool(expected.output.isfinite().all())
    open_rows = torch.zeros(BATCH, 1, N, KEYS)
    given = _attended(q, k, v, open_rows)
    given[:, :, 5] = torch.nan
    assert bool(expected.alike(given))
    assert not bool(expected.alike(_attended(q, k, v, open_rows, temperature=2.0)))


def test_only_the_asked_rows_are_compared() -> None:
    q, k, v = _tensors()
    expected = expected_output(from_comfyui((q, k, v, HEADS), {"skip_reshape": True}), v, [1])
    given = _attended(q, k, v)
    given[0] = 0
    assert bool(expected.alike(given))
    assert not bool(expected.alike(given.flip(0)))


@pytest.mark.parametrize("shape", [(BATCH, N, HEADS), (BATCH, HEADS, N - 1, D), (1, HEADS, N, D), (BATCH, N * HEADS, D)])
def test_what_is_no_row_for_each_query_does_not_fit(shape: tuple[int, ...]) -> None:
    expected, _ = _expected()
    assert not expected.fits(torch.zeros(shape))


def test_few_queries_are_all_compared() -> None:
    q, k, v = _tensors()
    few = q[:, :, :3]
    expected = expected_output(from_comfyui((few, k, v, HEADS), {"skip_reshape": True}), v, range(BATCH), offset=2)
    assert sorted(expected.queries.tolist()) == [0, 1, 2]
    assert bool(expected.alike(_attended(few, k, v)))
