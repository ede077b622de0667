"""Steps of small joint layers that wait to be worked off together: the sums are those of Eq. 6, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.capture import joint_batching
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.call_batching import CallBatch, CallKind, HeldCalls
from daam_core.capture.families import family_of
from daam_core.capture.joint_batching import JointPlace
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.prompt.prompt import Prompt

from .transformer_models import CASES, build

STEPS = 11


def explicit(q: Tensor, k: Tensor, text: slice) -> Tensor:
    """Head sum of the text columns, float64 `[1, n, text]`."""
    return (q.double() @ k.double().transpose(-1, -2) * 0.5).softmax(-1).sum(1)[..., text]


def side_by_side(kind: CallKind, q: Tensor, k: Tensor) -> HeldCalls:
    """Three layers, their numbers 0, 1, 2, of `[layers, batch, heads, n, d]`."""
    if kind.heads_last:
        q, k = (x.transpose(2, 3).contiguous() for x in (q, k))
    return HeldCalls(kind, (0, 1, 2), q, k)


@pytest.mark.parametrize("heads_last", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2])
@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("room", [2, 8])
def test_steps_that_wait_are_those_of_the_equation(
    heads_last: bool, key_heads: int, looked_at: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, of one row of a batch whose picture stands behind other queries, when maps are asked for in the middle,
    and with a last step that was interrupted."""
    monkeypatch.setattr(joint_batching, "_STEPS", room)
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions())
    kind, where = CallKind(0.5, heads_last), BatchSlice(0, 1)
    place = JointPlace(1, slice(2, 6), slice(3, 7))
    wanted, late = torch.zeros(1, 4, 4, dtype=torch.float64), torch.zeros(1, 4, 4, dtype=torch.float64)
    for number in range(1, STEPS + 2):
        q, k = torch.randn(3, 2, 2, 6, 8), torch.randn(3, 2, key_heads, 7, 8)
        calls = side_by_side(kind, q, k)
        batch = accumulator.joint_batch((2, 2), calls, place, where)
        assert batch is not None
        batch.add(calls)
        if number <= STEPS:
            accumulator.end_step()
            own_k = k[:, 1].repeat_interleave(2 // key_heads, 1)
            own = explicit(q[:, 1, :, 2:6].flatten(0, 1)[None], own_k.flatten(0, 1)[None], place.text)
            wanted += own
            late += number**2 * own
        if looked_at:
            (part,) = accumulator.sums.values()
            torch.testing.assert_close(part.total.double(), wanted, rtol=1e-5, atol=1e-7)
    (part,) = accumulator.sums.values()
    torch.testing.assert_close(part.total.double(), wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(part.time_weighted.double(), late, rtol=1e-5, atol=1e-7)
    assert part.num_terms == 6 * STEPS and sorted(accumulator.grids) == [0, 1, 2]
    accumulator.release()
    assert not batch.enabled  # whoever remembers it asks for another


@pytest.mark.parametrize("keep", [StoreOptions(steps=True), StoreOptions(layers=True), StoreOptions(heads=True)])
def test_nothing_waits_that_is_kept_apart(keep: StoreOptions) -> None:
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], keep)
    calls = side_by_side(CallKind(0.5, False), torch.randn(3, 1, 2, 4, 8), torch.randn(3, 1, 2, 7, 8))
    assert accumulator.joint_batch((2, 2), calls, JointPlace(0, slice(0, 4), slice(0, 3)), BatchSlice(0, 1)) is None


def recorded(name: str, keep: StoreOptions) -> tuple[TransformerRecording, list[Tensor]]:
    """Several steps of a small model, each of another picture; row 1 of the batch is the prompt's."""
    case, pictures = CASES[name], []
    model = build(case)
    family, given = family_of(model), dict(case.given)
    rows = family.text_rows(given)
    texts = [EncodedText("negative", 0, 0, rows[0]), EncodedText("prompt", 0, 0, rows[1])]
    recording = TransformerRecording(lambda: texts, lambda row, family, columns: Prompt.by_index(sum(columns)), keep)
    errors: list[Exception] = []
    torch.manual_seed(1)
    with TransformerHooks(model, ModelRecorder(model, family, 0, lambda: recording, errors.append)), torch.no_grad():
        for _ in range(STEPS):
            pictures.append(model(**given, return_dict=False)[0])
            recording.end_step()
            given[case.picture] = torch.randn_like(case.given[case.picture])
    assert not errors and not recording.recording.failure, errors
    return recording, pictures


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_calls_that_wait_unread_have_the_sums_of_those_read_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's own function and by diffusers' backends; heads kept apart are read at once."""
    waited: list[bool] = []
    add_like: Callable[..., bool] = CallBatch.add_like

    def counted(*args: Any) -> bool:
        waited.append(add_like(*args))
        return waited[-1]

    monkeypatch.setattr(CallBatch, "add_like", counted)
    got, pictures = recorded(name, StoreOptions(self_attention=True))
    assert all(waited) and len(waited) >= STEPS - 2
    waited.clear()
    wanted, others = recorded(name, StoreOptions(self_attention=True, heads=True))
    assert not waited
    assert all(torch.equal(one, other) for one, other in zip(pictures, others, strict=True))
    for one, other in zip(got.recording.groups, wanted.recording.groups, strict=True):
        assert one.accumulator.grids == other.accumulator.grids
        own, theirs = one.accumulator.self_attention, other.accumulator.self_attention
        assert (own is None) == (theirs is None) == (one.side == "negative")
        if own is not None:
            torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)
        for sums, expected in zip(one.accumulator.sums.values(), other.accumulator.sums.values(), strict=True):
            assert sums.num_terms == expected.num_terms
            torch.testing.assert_close(sums.both, expected.both, rtol=1e-5, atol=1e-6)


def test_only_a_call_like_the_one_before_waits_unread() -> None:
    q, k, v = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    pattern = CallBatch(True).pattern(0, AttentionCall(q, k, 0.5))
    backend = {"query": q.transpose(1, 2), "key": k.transpose(1, 2), "value": v.transpose(1, 2), "attn_mask": None}
    assert pattern.tensors((q, k, v), {"dropout_p": 0.0, "is_causal": False}, False) == (q, k)
    assert pattern.tensors((), backend | {"scale": 0.5}, True) == (backend["query"], backend["key"])
    for other in ({"attn_mask": torch.ones(5, 6)}, {"is_causal": True}, {"scale": 0.25}, {"_parallel_config": object()}):
        assert pattern.tensors((q, k, v), other, False) is None
    assert pattern.tensors((q, k[:, :, :5], v), {}, False) is None
    assert pattern.tensors((q.double(), k.double(), v), {}, False) is None
    assert pattern.tensors((q, k, v), {}, True) is None
    assert CallBatch(True).pattern(0, AttentionCall(q, k, 0.7)).tensors((q, k, v), {}, False) is None
