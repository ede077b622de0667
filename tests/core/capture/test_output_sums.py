"""What an attention gives out, against words and against itself, for every family: against explicit softmax and values in
float64."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core.attention.cells import Cells
from daam_core.attention.output import add_affinity, add_output_scores, heads_beside
from daam_core.capture import output_sums, transformer_attention
from daam_core.capture.attention_call import AttentionCall
from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.families import family_of
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.output_sums import OutputSums
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.errors import UnsupportedModel
from daam_core.prompt.prompt import Prompt

from .attention_witness import Witness, text_and_picture
from .test_families import run
from .transformer_models import CASES, Case, build

PICTURES = [name for name, case in CASES.items() if case.grid[0] == 1]
VIDEOS = [name for name, case in CASES.items() if case.grid[0] > 1]


class OutputWitness(Witness):
    """Collects the values, too, `[batch, heads, keys, d]`, every query head with its own."""

    def __enter__(self) -> OutputWitness:
        super().__enter__()
        self.values: list[Tensor] = []
        below = torch.nn.functional.scaled_dot_product_attention

        def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            seen = len(self.calls)
            out = below(query, key, value, *args, **kwargs)
            if len(self.calls) > seen:
                self.values.append(value.detach().double().repeat_interleave(query.shape[1] // value.shape[1], 1))
            return out

        torch.nn.functional.scaled_dot_product_attention = attention
        return self

    def output(self, index: int, row: int) -> tuple[Tensor, Tensor]:
        """float64 `[n, heads * d]` and `[keys, heads * d]` of one call and row: softmax(Q K^T) V, and V."""
        out = (self.probabilities(index)[row].nan_to_num() @ self.values[index][row]).transpose(0, 1).flatten(1)
        return out, self.values[index][row].transpose(0, 1).flatten(1)


def recorded(model: nn.Module, case: Case, keep: StoreOptions) -> tuple[TransformerRecording, Tensor, list[Exception]]:
    """One call with the hooks in: row 0 is the negative prompt's, row 1 the prompt's."""
    family = family_of(model)
    rows = family.text_rows(case.given)
    texts = [EncodedText("negative", 0, 0, rows[0]), EncodedText("prompt", 0, 0, rows[1])]
    recording = TransformerRecording(lambda: texts, lambda row, family, n: Prompt.by_index(sum(n)), keep)
    errors: list[Exception] = []
    with TransformerHooks(model, ModelRecorder(model, family, 0, lambda: recording, errors.append), keep.output):
        out = run(model, case.given)
    recording.end_step()
    return recording, out, errors


def expected(model: nn.Module, case: Case, row: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """float64 scores `[h * w, columns]` of one row, the sum of the magnitudes of what goes into each, and the cosines
    `[h * w, h * w]` of one layer in four, from the first on."""
    first, keys, queries = text_and_picture(model, case)
    with OutputWitness(model, case.apart) as witness:
        run(model, case.given)
    size = witness.calls[first][0].shape[-2], witness.calls[first][1].shape[-2]
    n = prod(case.grid)
    scores, scale = (torch.zeros(n, columns, dtype=torch.float64) for _ in range(2))
    cosines = torch.zeros(n, n, dtype=torch.float64)
    for index in range(first, len(witness.calls)):
        q, k, *_ = witness.calls[index]
        if (q.shape[-2], k.shape[-2]) != size or q.shape[0] != keys.shape[0]:
            continue
        output, values = witness.output(index, row)
        places, text = queries[row].nonzero().flatten()[:n], keys[row].nonzero().flatten()
        joint = size[0] == size[1] and not bool((keys & queries).any())
        own = (output if joint else values)[text]
        order = [c for c in case.order[row] if c >= 0] if case.order is not None else range(len(own))
        for one, column in zip(own, order, strict=False):
            if column < columns:
                scores[:, column] += output[places] @ one
                scale[:, column] += output[places].norm(dim=-1) * one.norm()
        unit = output[places] / output[places].norm(dim=-1, keepdim=True)
        cosines += unit @ unit.T
    return scores, scale, cosines


@pytest.mark.parametrize(("name", "small"), [*((name, 0) for name in PICTURES), ("flux", 2**17), ("lumina 2", 2**17)])
def test_output_space_of_every_family(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture untouched, scores and affinity of both rows to 1e-5, with and without the kernel's log-sum-exp."""
    monkeypatch.setattr(transformer_attention, "_SMALL", small)
    case = CASES[name]
    model = build(case)
    before = run(model, case.given)
    recording, during, errors = recorded(model, case, StoreOptions(output=True))
    assert not errors and not recording.recording.output_failure, (errors, recording.recording.output_failure)
    assert torch.equal(during, before) and torch.equal(run(model, case.given), before)
    for row, side in enumerate(("negative", "prompt")):
        (group,) = (group for group in recording.recording.groups if group.side == side)
        got = group.accumulator.outputs
        assert got is not None and list(got.affinity) == [case.grid[1:]]
        (found,) = got.scores.values()
        scores, scale, cosines = expected(model, case, row, found.shape[-1] - 3)
        there = scale.sum(0) > 0  # padding that nothing attends to has no value
        error = (found[0, :, 1:-2].double() - scores).abs() / scale.clamp(min=1e-12)
        assert float(error[:, there].max()) < 1e-5
        assert float(scores[:, there].std()) > 0 and bool(there.any())
        mean = got.affinity[case.grid[1:]][0].double() / got.weights[case.grid[1:]]
        assert (mean - cosines / cosines.diagonal().mean()).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["flux", "sd3", "z-image", "qwen", "pixart"])
def test_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bfloat16 model gives out, against float64 of that very output."""
    case = CASES[name]
    model = build(case).bfloat16()

    def half(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.bfloat16() if x.is_floating_point() else x
        return [half(y) for y in x] if isinstance(x, list) else x

    given = {name: half(value) for name, value in case.given.items()}
    halved = replace(case, given=given)
    before = run(model, given)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def watched(into: Tensor, output: Tensor, values: Tensor, selection: Tensor) -> None:
        kept.append((output.clone(), values.clone(), selection.clone()))
        add_output_scores(into, output, values, selection)

    monkeypatch.setattr(output_sums, "add_output_scores", watched)
    recording, during, errors = recorded(model, halved, StoreOptions(output=True))
    assert not errors and torch.equal(during, before) and kept[0][0].dtype == torch.bfloat16
    (group,) = (group for group in recording.recording.groups if group.side == "prompt")
    assert group.accumulator.outputs is not None
    (found,) = group.accumulator.outputs.scores.values()
    wanted = sum((o.double() @ (s.double().transpose(1, 2) @ v.double()).transpose(1, 2)) for o, v, s in kept[1::2])
    assert isinstance(wanted, Tensor)
    assert (found.double() - wanted).abs().max() < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("name", VIDEOS[:2])
def test_a_video_says_that_its_output_is_not_read_and_has_its_words(name: str) -> None:
    case = CASES[name]
    recording, _, errors = recorded(build(case), case, StoreOptions(output=True))
    assert not errors and "videos" in recording.recording.output_failure
    assert all(group.accumulator.outputs is None and group.accumulator.sums for group in recording.recording.groups)


def test_nothing_is_read_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(AttentionCall, "with_output", never)
    recording, _, errors = recorded(build(CASES["flux"]), CASES["flux"], StoreOptions())
    assert not errors and all(group.accumulator.outputs is None for group in recording.recording.groups)


def test_what_is_no_output_is_refused_by_name() -> None:
    call = AttentionCall(torch.zeros(2, 2, 6, 4), torch.zeros(2, 2, 5, 4), 0.5)
    values = torch.zeros(2, 2, 5, 4)
    assert call.with_output(values, (torch.ones(2, 2, 6, 4), "statistics")).output is not None
    with pytest.raises(UnsupportedModel, match="6 queries on 5 keys gave out"):
        call.with_output(values, torch.zeros(2, 2, 5, 4))
    with pytest.raises(UnsupportedModel, match="something else than a tensor"):
        call.with_output(values, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_and_cells_change_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    output, values = torch.randn(2, 3, 12, 4).to(dtype), torch.randn(2, 3, 5, 4).to(dtype)
    o, v = heads_beside(output), heads_beside(values)
    selection = torch.eye(5)[None].expand(2, -1, -1)
    into = torch.zeros(2, 12, 5)
    add_output_scores(into, o, v, selection, budget=200)
    torch.testing.assert_close(into.double(), o.double() @ v.double().transpose(1, 2), rtol=1e-5, atol=1e-5)
    found = torch.zeros(2, 4, 4)
    add_affinity(found, o, Cells((2, 6), (2, 2)), 3.0)
    halves = o.double().unflatten(1, (2, 2, 3)).mean(3).flatten(1, 2)
    unit = halves / halves.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found.double(), 3 * unit @ unit.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_one_grid_of_bounded_size_stays_and_late_steps_weigh_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_sums, "AFFINITY_POSITIONS", 16)
    torch.manual_seed(0)
    sums, where, eye = OutputSums(1), BatchSlice(0, 1), torch.eye(3)[None]
    values = torch.randn(1, 3, 8)
    outputs = {(8, 8): torch.randn(1, 64, 8), (4, 4): torch.randn(1, 16, 8), (2, 2): torch.randn(1, 4, 8)}
    for step in (1, 2):
        for layer, (grid, output) in enumerate(outputs.items()):
            sums.add(layer, grid, step * output, values, eye, where, step)
        sums.end_step(step)
    assert list(sums.affinity) == [(4, 4)] and sums.weights == {(4, 4): 5.0}
    torch.testing.assert_close(sums.affinity[4, 4].diagonal(dim1=1, dim2=2), torch.full((1, 16), 5.0))
    for (grid, _), found in sums.scores.items():
        torch.testing.assert_close(found, (1 + 2 * 4) * outputs[grid] @ values.transpose(1, 2), rtol=1e-5, atol=1e-4)


def test_an_interrupted_step_is_not_folded() -> None:
    sums, where = OutputSums(1), BatchSlice(0, 1)
    ones = torch.ones(1, 4, 2)
    sums.add(0, (2, 2), ones, ones[:, :1], torch.ones(1, 1, 1), where, 1)
    sums.end_step(1)
    sums.add(0, (2, 2), ones, ones[:, :1], torch.ones(1, 1, 1), where, 2)
    sums.release()
    assert all(bool((x == 2).all()) for x in sums.scores.values())
