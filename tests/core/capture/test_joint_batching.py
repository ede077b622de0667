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
from daam_core.capture.call_batching import CallBatch, CallPattern
from daam_core.capture.families import family_of
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


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("room", [2, 8])
def test_steps_that_wait_are_those_of_the_equation(looked_at: bool, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, when maps are asked for in the middle, and with a last step that was interrupted."""
    monkeypatch.setattr(joint_batching, "_STEPS", room)
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions())
    text, wanted, late = slice(3, 7), torch.zeros(1, 4, 4, dtype=torch.float64), torch.zeros(1, 4, 4, dtype=torch.float64)
    for number in range(1, STEPS + 2):
        q, k = torch.randn(1, 6, 4, 8), torch.randn(1, 6, 7, 8)
        assert accumulator.add_joint_layers([0, 1, 2], (2, 2), AttentionCall(q, k, 0.5), BatchSlice(0, 1), text)
        if number <= STEPS:
            accumulator.end_step()
            wanted += explicit(q, k, text)
            late += number**2 * explicit(q, k, text)
        if looked_at:
            (part,) = accumulator.sums.values()
            torch.testing.assert_close(part.total.double(), wanted, rtol=1e-5, atol=1e-7)
    (part,) = accumulator.sums.values()
    torch.testing.assert_close(part.total.double(), wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(part.time_weighted.double(), late, rtol=1e-5, atol=1e-7)
    assert part.num_terms == 6 * STEPS and sorted(accumulator.grids) == [0, 1, 2]


@pytest.mark.parametrize("keep", [StoreOptions(steps=True), StoreOptions(layers=True), StoreOptions(heads=True)])
def test_nothing_waits_that_is_kept_apart(keep: StoreOptions) -> None:
    accumulator = Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], keep)
    call = AttentionCall(torch.randn(1, 6, 4, 8), torch.randn(1, 6, 7, 8), 0.5)
    assert not accumulator.add_joint_layers([0], (2, 2), call, BatchSlice(0, 1), slice(0, 3))


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
    got, pictures = recorded(name, StoreOptions())
    assert all(waited) and len(waited) >= STEPS - 2
    waited.clear()
    wanted, others = recorded(name, StoreOptions(heads=True))
    assert not waited
    assert all(torch.equal(one, other) for one, other in zip(pictures, others, strict=True))
    for one, other in zip(got.recording.groups, wanted.recording.groups, strict=True):
        assert one.accumulator.grids == other.accumulator.grids
        for sums, expected in zip(one.accumulator.sums.values(), other.accumulator.sums.values(), strict=True):
            assert sums.num_terms == expected.num_terms
            torch.testing.assert_close(sums.both, expected.both, rtol=1e-5, atol=1e-6)


def test_only_a_call_like_the_one_before_waits_unread() -> None:
    q, k, v = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    pattern = CallPattern.of(0, AttentionCall(q, k, 0.5))
    backend = {"query": q.transpose(1, 2), "key": k.transpose(1, 2), "value": v.transpose(1, 2), "attn_mask": None}
    assert pattern.tensors((q, k, v), {"dropout_p": 0.0, "is_causal": False}, False) == (q, k)
    assert pattern.tensors((), backend | {"scale": 0.5}, True) == (backend["query"], backend["key"])
    for other in ({"attn_mask": torch.ones(5, 6)}, {"is_causal": True}, {"scale": 0.25}, {"_parallel_config": object()}):
        assert pattern.tensors((q, k, v), other, False) is None
    assert pattern.tensors((q, k[:, :, :5], v), {}, False) is None
    assert pattern.tensors((q.double(), k.double(), v), {}, False) is None
    assert pattern.tensors((q, k, v), {}, True) is None
    assert CallPattern.of(0, AttentionCall(q, k, 0.7)).tensors((q, k, v), {}, False) is None
