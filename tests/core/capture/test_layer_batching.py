"""Layers and steps that wait to be worked off together: the sums are those of Eq. 6, whatever happens meanwhile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from daam_core.attention import scores as attention
from daam_core.capture import layer_batching as pool
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.errors import NothingRecorded

LAYERS, KEYS = 12, 6


def summed(
    inference: bool = False, spoil: bool = False, keep: StoreOptions | None = None, layers: int = LAYERS, hold: bool = True
) -> Tensor:
    """Four steps of many small layers, `[1, 4, KEYS]`; `spoil`: the model writes into what it gave out."""
    accumulator = Accumulator(slice(1, 2), lambda keys, part: torch.eye(keys)[None], keep or StoreOptions(), hold)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(inference):
        for _ in range(4):
            for layer in range(layers):
                q, k = torch.randn(2, 4, 8, generator=generator), torch.randn(2, KEYS, 8, generator=generator)
                accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5)
                if spoil:
                    q *= 0
                    k *= 0
            accumulator.end_step()
        sums = list(accumulator.sums.values())
        accumulator.release()
    return torch.stack([part.total for part in sums]).sum(0)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize("hold", [False, True])
def test_gathered_layers_sum_to_the_same(inference: bool, spoil: bool, hold: bool) -> None:
    """One by one (layers kept apart) and together, and where queries and keys are written to afterwards."""
    apart = summed(keep=StoreOptions(layers=True))
    torch.testing.assert_close(summed(inference, spoil, hold=hold), apart, rtol=1e-5, atol=1e-6)


def test_more_layers_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_MANY", 5)
    torch.testing.assert_close(summed(), summed(keep=StoreOptions(layers=True)), rtol=1e-5, atol=1e-6)


def explicit(q: Tensor, k: Tensor) -> Tensor:
    """One layer's head sum `[1, 4, KEYS]`, float64."""
    queries, keys = (x.double().unflatten(-1, (2, 4)).transpose(1, 2) for x in (q, k))
    return (queries @ keys.transpose(-1, -2) * 0.5).softmax(-1).sum(1)


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("room", [4, 12, 13, 29, 128])
def test_steps_may_wait(
    room: int, hold: bool, images: int, interrupted: bool, looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of one number of layers or another (caches leave layers out); the sums may be looked at in the middle of a step
    or of the run; a step that is never finished never counts. An explicit softmax in float64 says what is right."""
    monkeypatch.setattr(pool, "_MANY", room)
    generator = torch.Generator().manual_seed(0)
    accumulator = Accumulator(
        slice(1, 1 + images), lambda keys, part: torch.eye(keys).expand(images, -1, -1), StoreOptions(), hold
    )
    total, late = torch.zeros(2, images, 4, KEYS, dtype=torch.float64)
    counts = [LAYERS, LAYERS, 5, 5, LAYERS, 1, LAYERS, LAYERS]
    for step, count in enumerate(counts, 1):
        whole = step < len(counts) or not interrupted
        for layer in range(count if whole else count - 3):
            q = torch.randn(3 + images, 4, 8, generator=generator)[1:]  # a part of a larger tensor
            k = torch.randn(2 + images, KEYS, 16, generator=generator)[..., 8:]  # keys and values in one, as some models have
            accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5)
            if looked_at and layer % 5 == 3:
                assert accumulator.sums
            if whole:
                share = explicit(q[1:-1], k[1:-1])
                total, late = total + share, late + step**2 * share
        if whole:
            accumulator.end_step()
        if looked_at and step % 3 == 0:
            (part,) = accumulator.sums.values()
            torch.testing.assert_close(part.total.double(), total, rtol=1e-5, atol=1e-6)
    accumulator.release()
    (part,) = accumulator.sums.values()
    torch.testing.assert_close(part.total.double(), total, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(part.time_weighted.double(), late, rtol=1e-5, atol=1e-5)
    assert part.num_terms == 2 * sum(counts[:-1] if interrupted else counts)


def test_several_steps_are_worked_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps of twelve layers fit into a pool of 128: one softmax for all."""
    calls: list[int] = []
    original = attention.probabilities

    def counted(q: Tensor, k: Tensor, scale: float) -> Tensor:
        calls.append(len(q))
        return original(q, k, scale)

    monkeypatch.setattr(attention, "probabilities", counted)
    summed()
    assert calls == [4 * LAYERS * 2]


def test_a_run_may_be_looked_at_outside_its_inference_mode() -> None:
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions(self_attention=True))
    with torch.inference_mode():
        for layer in range(LAYERS):
            q, k = torch.randn(1, 4, 8), torch.randn(1, KEYS, 8)
            accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5)
            accumulator.add_self((2, 2), q, q, 2, 0.5)
        accumulator.end_step()
    (part,) = accumulator.sums.values()
    torch.testing.assert_close(part.total.sum(-1), torch.full((1, 4), 2.0 * LAYERS))
    assert accumulator.self_attention is not None
    torch.testing.assert_close(accumulator.self_attention.sum(-1), torch.full((1, 4), 2.0 * LAYERS))


def test_without_copies_of_several_tensors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PyTorch 2.0."""
    expected = summed()
    monkeypatch.delattr(torch, "_foreach_copy_")
    assert torch.equal(summed(), expected)


def test_layers_that_train_are_not_held_by_the_sums() -> None:
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions())
    for layer in range(LAYERS):
        q, k = (torch.randn(1, n, 8, requires_grad=True) for n in (4, KEYS))
        accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5)
    accumulator.end_step()
    (part,) = accumulator.sums.values()
    assert not part.total.requires_grad


def test_writing_that_begins_in_the_middle_of_a_run_is_refused() -> None:
    """What was held by reference has been changed by somebody: no map is better than a wrong one."""
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions(), hold=True)
    for step in range(2):
        for layer in range(LAYERS):
            q, k = torch.randn(1, 4, 8), torch.randn(1, KEYS, 8)
            accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5)
            if step == 1 and layer == 3:
                q.mul_(2)
        if step == 0:
            accumulator.end_step()
    with pytest.raises(NothingRecorded, match="began to write"):
        accumulator.end_step()


@pytest.mark.parametrize("contiguous", [False, True])
def test_a_batch_that_shrinks_is_refused_and_reads_no_foreign_memory(contiguous: bool) -> None:
    """Guidance that is switched off leaves one row where the second was recorded; a part of a larger tensor has
    more behind it."""
    accumulator = Accumulator(slice(1, 2), lambda keys, part: torch.eye(keys)[None], StoreOptions())
    for rows in (2, 1):
        whole_q, whole_k = torch.randn(4, 4, 8), torch.randn(4, KEYS, 8)
        q, k = whole_q[:rows], whole_k[:rows]
        if not contiguous:
            q, k = q.transpose(1, 2).contiguous().transpose(1, 2), k.transpose(1, 2).contiguous().transpose(1, 2)
        if rows == 1:
            with pytest.raises(NothingRecorded, match="1 rows where at least 2"):
                accumulator.add_cross(0, (2, 2), q, k, 2, 0.5)
        else:
            accumulator.add_cross(0, (2, 2), q, k, 2, 0.5)
        accumulator.end_step()


def test_batches_of_many_places_are_bounded() -> None:
    """Forty views of one picture, each with layers of its own: sixteen have memory to wait in, and nothing is lost."""
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions(), True)
    places = [BatchSlice(0, 1) for _ in range(40)]
    expected = torch.zeros(1, 4, KEYS, dtype=torch.float64)
    for _ in range(3):
        for where in places:
            q, k = torch.randn(1, 4, 8), torch.randn(1, KEYS, 8)
            accumulator.add_cross(0, (2, 2), q, k, 2, 0.5, where)
            expected += explicit(q, k)
        accumulator.end_step()
    assert sum(batch.enabled for batch in accumulator._batches.values()) == 16
    (sums,) = accumulator.sums.values()
    assert sums.num_terms == 3 * 40 * 2
    torch.testing.assert_close(sums.total.double(), expected, rtol=1e-6, atol=1e-5)
