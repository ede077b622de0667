"""An attention call in all the forms that hosts make it in gives the scores that the host itself computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from daam_core.capture.attention_call import AttentionCall, from_comfyui, from_dispatch, from_sdpa
from daam_core.capture.lse_capture import LseCapture
from daam_core.errors import UnsupportedModel

BATCH, HEADS, QUERIES, KEYS, DIM = 2, 4, 6, 5, 8


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def of(call: AttentionCall) -> Tensor:
    """softmax of q . k * scale + bias, as the call is read."""
    q, k = call.q, call.k
    if call.packed_heads:
        q, k = (x.unflatten(-1, (call.heads, -1)).transpose(1, 2) for x in (q, k))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q.double() @ k.double().transpose(-1, -2) * call.scale
    return torch.softmax(scores if call.bias is None else scores + call.bias.double(), -1)


def probabilities(*args: object, **kwargs: object) -> Tensor:
    """As ComfyUI's arguments are read."""
    return of(from_comfyui(args, kwargs))


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
    assert torch.allclose(probabilities(joined(q), joined(few), joined(few), HEADS, enable_gqa=True), wanted(q, of_each))
    part, _ = from_comfyui((q, few, few, HEADS), {"skip_reshape": True}).part(slice(0, 1), 1, 2, slice(0, KEYS))
    assert torch.equal(part.k, of_each[:1])


def test_one_reading_for_every_host(q: Tensor, k: Tensor) -> None:
    """The same attention as each of the three functions is called gives the same numbers."""
    chosen = random(BATCH, 1, QUERIES, KEYS) > -0.5
    chosen[..., 0] = True
    calls = (
        from_sdpa((q, k, k), {"attn_mask": chosen}),
        from_dispatch({"query": q.transpose(1, 2), "key": k.transpose(1, 2), "attn_mask": chosen}),
        from_comfyui((joined(q), joined(k), joined(k), HEADS, chosen), {}),
    )
    for call in calls:
        assert (call.batch, call.heads, call.queries, call.keys) == (BATCH, HEADS, QUERIES, KEYS)
        assert torch.allclose(of(call), wanted(q, k, chosen), atol=1e-6)


def test_masks_that_are_no_tensors_are_refused(q: Tensor, k: Tensor) -> None:
    with pytest.raises(UnsupportedModel, match="class str"):
        from_sdpa((q, k, k, "causal"), {})
    with pytest.raises(UnsupportedModel, match="class str"):
        from_comfyui((q, k, k, HEADS, "causal"), {})


def test_some_rows_and_queries(q: Tensor, k: Tensor) -> None:
    mask = random(BATCH, 1, QUERIES, KEYS)
    for call in (
        from_comfyui((q, k, k, HEADS), {"mask": mask, "skip_reshape": True}),
        from_comfyui((joined(q), joined(k), joined(k), HEADS, mask), {}),
    ):
        part, text = call.part(slice(1, 2), 2, 3, slice(1, 4))
        assert text == slice(1, 4), "all keys are needed where the log-sum-exp is not known"
        assert torch.allclose(of(part), of(call)[1:2, :, 2:5])
        known, text = call.with_lse(torch.zeros(BATCH, HEADS, QUERIES)).part(slice(1, 2), 2, 3, slice(1, 4))
        assert (text, known.keys) == (slice(0, 3), 3)
        assert torch.equal(known.k, part.k[..., 1:4, :])


@pytest.mark.parametrize("inference", [False, True])
def test_the_log_sum_exp_of_the_kernel(q: Tensor, k: Tensor, inference: bool) -> None:
    """Caught on the way where a fused kernel computes it, and the attention's output stays bit-identical."""
    call = from_comfyui((q, k, k, HEADS), {"skip_reshape": True})
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
    assert capture.of(from_comfyui((q, k, k, HEADS), {"skip_reshape": True})) is None


def test_tokens_that_other_devices_have_are_refused_with_what_to_do(q: Tensor, k: Tensor) -> None:
    given = {"query": q.transpose(1, 2), "key": k.transpose(1, 2)}
    assert from_dispatch({**given, "_parallel_config": None}).heads == HEADS
    with pytest.raises(UnsupportedModel, match=r"Context parallel spreads one attention .* load it without `parallel_config`"):
        from_dispatch({**given, "_parallel_config": object()})
