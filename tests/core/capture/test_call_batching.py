"""Small calls wait for each other while a model runs: the same sums, only where nobody writes into what waits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.capture import call_batching
from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.call_batching import CallBatch
from daam_core.errors import NothingRecorded


def call(keys: int = 6, heads: int = 2, key_heads: int = 2, **more: Any) -> AttentionCall:
    return AttentionCall(torch.randn(2, heads, 5, 4), torch.randn(2, key_heads, keys, 4), 0.5, **more)


def watched(enabled: bool = True) -> CallBatch:
    """A batch that has seen one call of the model in which nobody wrote into anything."""
    batch = CallBatch(enabled)
    batch.begin()
    assert not batch.add(0, call())
    assert batch.take() == []
    batch.begin()
    return batch


def test_layers_of_one_shape_become_one_layer_of_more_heads() -> None:
    """Grouped keys stay with their own queries: softmax of each head is that of the layer it came from."""
    batch = watched()
    calls = [call(key_heads=1), call(7), call(key_heads=1)]
    assert all(batch.add(number, one) for number, one in enumerate(calls))
    found = batch.take()
    assert [held.layers for held in found] == [(0, 2), (1,)] and [held.size for held in found] == [(5, 6), (5, 7)]
    alike, other = (held.as_one() for held in found)
    assert torch.equal(found[0].as_one([1]).k, calls[2].k)
    assert torch.equal(other.q, calls[1].q) and torch.equal(other.k, calls[1].k)
    part, keys = alike.part(slice(1, 2), 0, 5, slice(0, 6))
    got = (part.q.double() @ part.k.double().transpose(-1, -2) * part.scale).softmax(-1)[..., keys]
    wanted = [(c.q[1:].double() @ c.k[1:].double().transpose(-1, -2) * 0.5).softmax(-1) for c in (calls[0], calls[2])]
    torch.testing.assert_close(got, torch.cat(wanted, 1))


def test_memory_is_used_again_by_later_calls_once_nobody_needs_it() -> None:
    """What somebody still needs stays what it was; keys of another shape than the queries, and of the same."""
    batch = watched()
    for keys in (5, 6):
        kept = held = None
        for _ in range(4):
            calls = [call(keys) for _ in range(3)]
            assert all(batch.add(number, one) for number, one in enumerate(calls))
            (found,) = batch.take()
            assert torch.equal(found.q, torch.stack([one.q for one in calls]))
            assert torch.equal(found.k, torch.stack([one.k for one in calls]))
            if kept is None:
                kept, held = found, found.k.clone()
                continue
            assert found is not kept and torch.equal(kept.k, held)
            found.users -= 1
            batch.begin()
        assert len(batch._made[found.kind, found.layers]) == 2


def test_nothing_waits_where_somebody_writes_into_queries_or_keys() -> None:
    batch = CallBatch(True)
    batch.begin()
    one = call()
    assert not batch.add(0, one)
    one.k.mul_(2)
    batch.take()
    batch.begin()
    assert not batch.add(0, call()) and batch.take() == []


def test_somebody_who_begins_to_write_ends_the_recording() -> None:
    batch = watched()
    one = call()
    assert batch.add(0, one)
    one.q.add_(1)
    with pytest.raises(NothingRecorded, match="began to write"):
        batch.take()


def test_what_a_failed_call_left_is_dropped() -> None:
    batch = watched()
    assert batch.add(0, call())
    batch.begin()
    assert batch.take() == []


def test_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of 4 * 2 * 2 * (5 + 6) * 4 = 704 bytes; four fit into 3000."""
    monkeypatch.setattr(call_batching, "CPU_BYTES", 3000)
    batch = watched()
    assert [batch.add(i, call()) for i in range(3)] == [True] * 3 and not batch.full
    assert batch.add(3, call()) and batch.full and not batch.add(4, call())
    assert len(batch.take()) == 1 and batch.add(4, call())
    assert not batch.add(5, call(100))


def bias(x: Tensor) -> Tensor:
    return x.new_zeros(1, 1, 1, 6)


def test_calls_with_masks_of_inference_mode_or_of_a_compiled_model_do_not_wait() -> None:
    batch = watched()
    assert not batch.add(0, call(bias=bias(torch.zeros(1)))) and not batch.add(0, call(lse=torch.zeros(2, 2, 5)))
    with torch.inference_mode():
        assert not batch.add(0, call(8))
    assert not watched(enabled=False).add(0, call())
