"""Transformers attend to text and picture at once: text columns, normalised over all keys."""

from __future__ import annotations

import pytest
import torch

from daam_core.attention.joint import add_joint
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import BatchSlice, StoreOptions

IMAGES, HEADS, D, TEXT, PICTURE = 2, 3, 8, 5, 12


def explicit(q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Softmax of the picture's queries over all keys, text columns, summed over heads: float64 `[images, n, text]`."""
    out = torch.zeros(IMAGES, PICTURE, TEXT, dtype=torch.float64)
    for i in range(IMAGES):
        for h in range(HEADS):
            for x in range(PICTURE):
                scores = k[i, h].double() @ q[i, h, TEXT + x].double() / D**0.5
                if bias is not None:
                    scores = scores + bias[i].double()
                e = scores.exp()
                out[i, x] += (e / e.sum())[:TEXT]
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("with_lse", [False, True])
def test_equals_the_softmax_written_out(masked: bool, split: bool, with_lse: bool) -> None:
    """The log-sum-exp that a fused kernel gives away leads to the same numbers as the whole softmax."""
    torch.manual_seed(0)
    q, k = torch.randn(2, IMAGES, HEADS, TEXT + PICTURE, D)
    bias = torch.zeros(IMAGES, TEXT + PICTURE)
    bias[1, 3:5] = float("-inf")
    given = bias[:, None, None] if masked else None
    scores = q[:, :, TEXT:] @ k.transpose(-1, -2) / D**0.5 + (0 if given is None else given)
    queries, keys = q[:, :, TEXT:], k
    if not split:
        queries, keys = (x.transpose(1, 2).flatten(2) for x in (queries, keys))
    selection = torch.eye(TEXT).expand(IMAGES, -1, -1)
    found = torch.zeros(IMAGES, PICTURE, TEXT)
    lse = scores.logsumexp(-1) if with_lse else None
    add_joint(found, queries, keys, selection, HEADS, D**-0.5, slice(0, TEXT), given, lse, budget=2000)
    torch.testing.assert_close(found.double(), explicit(q, k, bias if masked else None), rtol=0, atol=1e-6)


def test_a_prompt_that_comes_in_late_has_empty_steps_before() -> None:
    """A timestep range begins at the second step: its first step is empty, and steps stay aligned."""
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions(steps=True))
    q, k = torch.randn(1, 4, 8), torch.randn(1, 6, 8)
    accumulator.add_cross(0, (2, 2), q, k, 2, 0.5)
    accumulator.end_step()
    accumulator.add_cross(1, (1, 4), q, k, 2, 0.5)
    accumulator.end_step()
    late = next(buffer for buffer in accumulator.buffers.values() if buffer.grid == (1, 4))
    assert len(late.steps) == 2
    assert float(late.steps[0].abs().sum()) == 0
    assert float(late.steps[1].abs().sum()) > 0


def test_rows_of_several_prompts_in_one_batch() -> None:
    """Two prompts of one picture lie in one batch: each goes to its own rows."""
    torch.manual_seed(1)
    q, k = torch.randn(3, 4, 8), torch.randn(3, 6, 8)
    parts = [torch.eye(12)[None, :6], torch.eye(12)[None, 6:]]
    accumulator = Accumulator(slice(0, 1), lambda keys, part: parts[part], StoreOptions())
    accumulator.add_cross(0, (2, 2), q, k, 1, 0.5, BatchSlice(2, 3, 0))
    accumulator.add_cross(0, (2, 2), q, k, 1, 0.5, BatchSlice(0, 1, 1))
    accumulator.end_step()
    (part,) = accumulator.sums.values()
    expected = torch.cat([torch.softmax(q[i] @ k[i].T * 0.5, -1) for i in (2, 0)], -1)
    torch.testing.assert_close(part.total[0], expected)


@pytest.mark.parametrize("with_lse", [False, True])
def test_text_that_stands_behind_other_keys(with_lse: bool) -> None:
    """Registers first, then text, then the picture: only the text's own columns are taken, normalised over all keys."""
    torch.manual_seed(2)
    q, k = torch.randn(1, HEADS, 4, D), torch.randn(1, HEADS, 3 + TEXT + 4, D)
    found = torch.zeros(1, 4, TEXT)
    lse = (q @ k.transpose(-1, -2) * 0.3).logsumexp(-1) if with_lse else None
    add_joint(found, q, k, torch.eye(TEXT)[None], HEADS, 0.3, slice(3, 3 + TEXT), None, lse)
    whole = torch.softmax(q.double() @ k.double().transpose(-1, -2) * 0.3, -1).sum(1)
    torch.testing.assert_close(found.double(), whole[..., 3 : 3 + TEXT], rtol=0, atol=1e-6)
