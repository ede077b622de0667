"""What else an attention call of text and picture tells, for every family: the picture's attention to itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core.capture import accumulator, transformer_hooks
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.families import family_of
from daam_core.capture.family import Family
from daam_core.capture.recording import Group
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import ModelRecorder, TransformerRecording
from daam_core.prompt.prompt import Prompt

from .attention_witness import Witness, text_and_picture
from .test_families import run
from .transformer_models import CASES, Case, build


def recorded(model: nn.Module, case: Case, keep: StoreOptions) -> Group:
    """The prompt's side of one call; row 0 of the batch is the negative prompt, row 1 the prompt."""
    family = family_of(model)
    rows = family.text_rows(case.given)
    texts = [EncodedText("negative", 0, 0, rows[0]), EncodedText("prompt", 0, 0, rows[1])]

    def prompt(row: EncodedText, family: Family, columns: Sequence[int]) -> Prompt:
        return Prompt.by_index(sum(columns))

    recording = TransformerRecording(lambda: texts, prompt, keep)
    errors: list[Exception] = []
    with TransformerHooks(model, ModelRecorder(model, family, 0, lambda: recording, errors.append)):
        run(model, case.given)
    recording.end_step()
    assert not errors, errors
    (group,) = (group for group in recording.recording.groups if group.side == "prompt")
    assert all(group.accumulator.self_attention is None for group in recording.recording.groups if group.side == "negative")
    return group


def first_joint_call(model: nn.Module, case: Case) -> tuple[Tensor, Tensor, Tensor] | None:
    """float64 probabilities `[frames, n, n]`, summed over heads, of the prompt's row in the first attention that has text and
    picture among queries and keys alike, with the places `[frames, positions]` of the picture and those of the text."""
    first, keys, queries = text_and_picture(model, case)
    with Witness(model, case.apart) as witness:
        run(model, case.given)
    q, k, *_ = witness.calls[first]
    if keys.shape[0] == 1:  # one call for each row: the next is the prompt's
        n = prod(case.grid)
        p = witness.probabilities(first + 1)[0].sum(0)
        return p[None], torch.arange(n).unflatten(0, (case.grid[0], -1)), torch.arange(n, len(p))
    if q.shape[-2] != k.shape[-2] or q.shape[0] != 2 or bool((keys & queries).any()):
        return None
    places = queries[1].nonzero().flatten()[: prod(case.grid)]  # a refiner makes padding behind the picture turn NaN too
    return witness.probabilities(first)[1].sum(0)[None], places.unflatten(0, (case.grid[0], -1)), keys[1].nonzero().flatten()


@pytest.mark.parametrize("name", CASES)
def test_the_picture_to_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first layer, in every family whose text and picture are one sequence."""
    monkeypatch.setattr(transformer_hooks, "_SMALL", 0)
    case = CASES[name]
    model = build(case)
    got = recorded(model, case, StoreOptions(self_attention=True)).accumulator
    found = first_joint_call(model, case)
    if found is None:
        assert got.self_attention is None and got.self_grid is None
        return
    p, picture, _ = found
    wanted = torch.stack([p[0][own][:, own] for own in picture]).sum(0)
    assert got.self_grid == case.grid[1:] and got.self_attention is not None
    assert (got.self_attention[0].double() - wanted).abs().max() / len(picture) < 1e-5
    assert float(wanted.std() / wanted.mean()) > 0.02, "attention that is even proves nothing"


@pytest.mark.parametrize("small", [0, 2**17])
@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_a_large_grid_is_cut_into_cells(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 3 positions where four may be kept: (1, 2) cells, the positions 3 and 5 in their middle; and the means of their keys,
    which share the middle column."""
    monkeypatch.setattr(transformer_hooks, "_SMALL", small)
    monkeypatch.setattr(accumulator, "SELF_ATTENTION_POSITIONS", 4)
    case = CASES[name]
    model = build(case)
    got = recorded(model, case, StoreOptions(self_attention=True)).accumulator
    found = first_joint_call(model, case)
    assert found is not None and got.self_attention is not None
    p, picture, _ = found
    whole = p[0][picture[0]][:, picture[0]][[3, 5]].unflatten(-1, (2, 3))
    wanted = torch.stack([whole[..., 0:2].mean((-2, -1)), whole[..., 1:3].mean((-2, -1))], -1)
    assert got.self_grid == (1, 2)
    assert (got.self_attention[0].double() - wanted).abs().max() < 1e-5


def test_every_fourth_layer_and_another_fourth_in_the_next_step_that_is_kept() -> None:
    one = accumulator.Accumulator(slice(0, 1), lambda keys, part: torch.eye(keys)[None], StoreOptions(self_attention=True))
    wanted: dict[int, list[int]] = {}
    for step in range(1, 17):
        wanted[step] = [layer for layer in range(9) if one.wants_joint_self(layer)]
        one.end_step()
    assert {step: layers for step, layers in wanted.items() if layers} == {
        1: [0, 4, 8], 4: [1, 5], 9: [2, 6], 16: [3, 7],
    }  # fmt: skip


def never_called(*_: Any) -> Any:
    raise AssertionError


def test_nothing_is_computed_where_it_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulator, "add_joint_self", never_called)
    case = CASES["flux"]
    assert recorded(build(case), case, StoreOptions()).accumulator.self_attention is None
