"""ComfyUI's attention call in all its forms gives the scores that the host itself computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from daam_core.capture.attention_call import LseCapture, attention_call

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 4, 6, 5, 8


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def probabilities(*args: object, **kwargs: object) -> Tensor:
    """softmax of q . k * scale + bias, as the call is read."""
    call = attention_call(args, kwargs)
    q, k = call.q, call.k
    if not call.split:
        q, k = (x.unflatten(-1, (call.heads, -1)).transpose(1, 2) for x in (q, k))
    scores = q.double() @ k.double().transpose(-1, -2) * call.scale
    return torch.softmax(scores if call.bias is None else scores + call.bias.double(), -1)


def wanted(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """The kernel's own probabilities: its output where the values are the unit matrix."""
    unit = torch.eye(k.shape[-2], dtype=torch.float64).expand(*k.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(q.double(), k.double(), unit, mask, scale=scale)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


@pytest.fixture
def q() -> Tensor:
    return random(BATCH, HEADS, QUERIES, DIM)


@pytest.fixture
def k() -> Tensor:
    return random(BATCH, HEADS, KEYS, DIM)


def test_heads_side_by_side_and_apart(q: Tensor, k: Tensor) -> None:
    assert torch.allclose(probabilities(joined(q), joined(k), joined(k), HEADS), wanted(q, k))
    assert torch.allclose(probabilities(q, k, k, heads=HEADS, skip_reshape=True), wanted(q, k))
    assert torch.allclose(probabilities(q, k, k, HEADS, None, None, True), wanted(q, k))


def test_a_scale_of_the_model(q: Tensor, k: Tensor) -> None:
    assert torch.allclose(probabilities(q, k, k, HEADS, skip_reshape=True, scale=0.7), wanted(q, k, scale=0.7))


@pytest.mark.parametrize("shape", [(QUERIES, KEYS), (BATCH, QUERIES, KEYS), (BATCH, 1, 1, KEYS), (1, HEADS, QUERIES, KEYS)])
def test_masks_that_are_added_and_masks_that_choose(q: Tensor, k: Tensor, shape: tuple[int, ...]) -> None:
    added = random(*shape).double()
    chosen = added > -0.5
    chosen[..., 0] = True
    for mask in (added, chosen):
        broad = mask[:, None] if mask.dim() == 3 else mask
        got = probabilities(q, k, k, HEADS, mask=mask, skip_reshape=True)
        assert torch.allclose(got, wanted(q, k, broad), atol=1e-6)


def test_several_query_heads_of_one_key_head(q: Tensor) -> None:
    few = random(BATCH, 2, KEYS, DIM)
    of_each = few[:, [0, 0, 1, 1]]
    assert torch.allclose(probabilities(q, few, few, HEADS, skip_reshape=True), wanted(q, of_each))


def test_some_rows_and_queries(q: Tensor, k: Tensor) -> None:
    mask = random(BATCH, 1, QUERIES, KEYS)
    part = attention_call((q, k, k, HEADS), {"mask": mask, "skip_reshape": True}).select(1, 2, 2, 3)
    assert torch.equal(part.q, q[1:2, :, 2:5]) and torch.equal(part.k, k[1:2])
    assert part.bias is not None and torch.equal(part.bias, mask[1:2, :, 2:5])


@pytest.mark.parametrize("inference", [False, True])
def test_the_log_sum_exp_of_the_kernel(q: Tensor, k: Tensor, inference: bool) -> None:
    """Caught on the way where a fused kernel computes it, and the attention's output stays bit-identical."""
    call = attention_call((q, k, k, HEADS), {"skip_reshape": True})
    with torch.inference_mode(inference):
        before = F.scaled_dot_product_attention(q, k, k)
        with LseCapture() as capture:
            during = F.scaled_dot_product_attention(q, k, k)
    assert torch.equal(before, during)
    lse = capture.of(call)
    assert lse is not None
    assert torch.allclose(lse, (q @ k.transpose(-1, -2) * DIM**-0.5).logsumexp(-1), atol=1e-5)


def test_two_attentions_have_no_log_sum_exp(q: Tensor, k: Tensor) -> None:
    with LseCapture() as capture:
        F.scaled_dot_product_attention(q, k, k)
        F.scaled_dot_product_attention(q, k, k)
    assert capture.of(attention_call((q, k, k, HEADS), {"skip_reshape": True})) is None
