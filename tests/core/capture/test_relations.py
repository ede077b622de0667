"""What else an attention call of text and picture tells, for every family: picture to itself, text to picture, text to text."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from daam_core.capture import accumulator, relation_sums, self_attention_sums, transformer_attention
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.families import FAMILIES, family_of
from daam_core.capture.family import Family
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.recording import Group
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.errors import UnsupportedModel
from daam_core.prompt.prompt import Prompt
from daam_core.types import Relation, Side

from .attention_witness import Witness, text_and_picture
from .test_families import run
from .transformer_models import CASES, Case, build

SELF = [
    "pixart",
    "wan",
    "wan vace",
    "wan i2v 2.1",
    "wan animate",
    "skyreels",
    "chronoedit",
    "ltx",
    "ltx 2",
    "cosmos",
    "allegro",
]
TEXT: tuple[Relation, ...] = ("text->image", "text->text")


def recorded(model: nn.Module, case: Case, keep: StoreOptions) -> tuple[Group, list[Exception]]:
    """The prompt's side of one call; of two rows the first is the negative prompt's."""
    family = family_of(model)
    rows = family.text_rows(case.given)
    both: tuple[Side, ...] = ("negative", "prompt")
    sides = both[-len(rows) :]
    texts = [EncodedText(side, 0, 0, row) for side, row in zip(sides, rows, strict=True)]

    def prompt(row: EncodedText, family: Family, columns: Sequence[int]) -> Prompt:
        return Prompt.by_index(sum(columns))

    recording = TransformerRecording(lambda: texts, prompt, keep)
    errors: list[Exception] = []
    with TransformerHooks(model, ModelRecorder(model, family, 0, lambda: recording, errors.append)):
        run(model, case.given)
    try:
        recording.end_step()
    except UnsupportedModel as error:
        errors.append(error)
    groups = {group.side: group for group in recording.recording.groups}
    assert all(group.accumulator.self_attention is None for side, group in groups.items() if side == "negative")
    return groups["prompt"], errors


def joint_calls(model: nn.Module, case: Case) -> tuple[list[Tensor], int, Tensor, Tensor] | None:
    """float64 probabilities `[n, n]`, summed over heads, of the prompt's row in every attention that has text and picture
    among queries and keys alike, its heads, the places `[frames, positions]` of the picture and those of the text."""
    first, keys, queries = text_and_picture(model, case)
    with Witness(model, case.apart) as witness:
        run(model, case.given)
    q, k, *_ = witness.calls[first]
    size = q.shape[-2], k.shape[-2]
    alike = [i for i, (q, k, *_) in enumerate(witness.calls) if i >= first and (q.shape[-2], k.shape[-2]) == size]
    if case.rows == keys.shape[0] == 1:  # the text has an attention of its own
        return None
    if keys.shape[0] == 1:  # one call for each row: the second is the prompt's
        n, size = prod(case.grid), witness.calls[first + 1][0].shape[-2:-1]
        own = [witness.probabilities(i)[0].sum(0) for i in range(first + 1, len(witness.calls), 2)]
        return own, q.shape[1], torch.arange(n).unflatten(0, (case.grid[0], -1)), torch.arange(n, len(own[0]))
    if size[0] != size[1] or q.shape[0] != 2 or bool((keys & queries).any()):
        return None
    places = queries[1].nonzero().flatten()[: prod(case.grid)]  # a refiner makes padding behind the picture turn NaN too
    calls = [witness.probabilities(i)[1].sum(0).nan_to_num() for i in alike if witness.calls[i][0].shape[0] == 2]
    return calls, q.shape[1], places.unflatten(0, (case.grid[0], -1)), keys[1].nonzero().flatten()


@pytest.mark.parametrize("name", CASES)
def test_every_relation_of_every_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every family whose text and picture are one sequence; the others say that their text asks nothing."""
    monkeypatch.setattr(transformer_attention, "_SMALL", 0)
    check_relations(name)


@pytest.mark.parametrize("name", ["flux", "sd3", "chroma", "lumina 2", "krea 2"])
def test_relations_without_the_log_sum_exp(name: str) -> None:
    """Without a mask, with one that is added or a choice, with grouped keys."""
    check_relations(name)


def check_relations(name: str) -> None:
    case = CASES[name]
    model = build(case)
    found = joint_calls(model, case)
    group, errors = recorded(model, case, StoreOptions(self_attention=True, relations=TEXT))
    got = group.accumulator
    if found is None:
        assert len(errors) == 1 and "only the picture has queries" in str(errors[0])
        assert (got.self_attention is None) is (not family_of(model).picture_layers)
        return
    assert not errors, errors
    calls, heads, picture, text = found
    everywhere = picture.flatten()  # the frames of a video attend to each other
    itself = calls[0][everywhere][:, everywhere]
    assert got.self_grid == case.grid[1:] and got.self_attention is not None
    assert (got.self_attention[0].double() - itself).abs().max() < 1e-5
    assert float(itself.std() / itself.mean()) > 0.02, "attention that is even proves nothing"
    check_text(got.relations, sum(calls), picture, text, case, heads * len(calls))


def picture_to_itself(model: nn.Module, case: Case, layer: str) -> Tensor:
    """float64 `[n, n]`, summed over heads: the prompt's row of the attention that a module of this name makes, at the picture's
    positions, which are found by what turns NaN with the picture."""
    _, _, queries = text_and_picture(model, case)
    begun: list[int] = []
    with Witness() as witness:
        handle = model.get_submodule(layer).register_forward_pre_hook(lambda *_: begun.append(len(witness.calls)))
        run(model, case.given)
        handle.remove()
    places = queries[1].nonzero().flatten()[: prod(case.grid)]
    return witness.probabilities(begun[0])[1].sum(0)[places][:, places]


@pytest.mark.parametrize("small", [0, 2**17])
@pytest.mark.parametrize("name", SELF)
def test_the_picture_to_itself_where_the_text_has_an_attention_of_its_own(
    name: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first such layer in the first step, with and without the kernel's log-sum-exp; the picture stays as it is."""
    monkeypatch.setattr(transformer_attention, "_SMALL", small)
    case = CASES[name]
    model = build(case)
    layers = [layer for layer, _ in model.named_modules() if family_of(model).is_picture_layer(layer)]
    wanted = picture_to_itself(model, case, layers[0])
    before = run(model, case.given)
    group, errors = recorded(model, case, StoreOptions(self_attention=True))
    got = group.accumulator
    assert not errors, errors
    assert torch.equal(run(model, case.given), before)
    assert got.self_grid == case.grid[1:] and got.self_attention is not None
    assert (got.self_attention[0].double() - wanted).abs().max() < 1e-5
    assert float(wanted.std() / wanted.mean()) > 0.02, "attention that is even proves nothing"
    group, errors = recorded(model, case, StoreOptions())
    assert not errors and group.accumulator.self_attention is None


def test_every_family_that_is_read_so_is_tested() -> None:
    assert {family.name for family in FAMILIES if family.picture_layers} == {
        family_of(build(CASES[name])).name for name in SELF
    }


def test_a_large_picture_of_a_cross_attention_is_cut_into_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with joint attention: 2 x 3 positions where four may be kept are (1, 2) cells."""
    monkeypatch.setattr(self_attention_sums, "SELF_ATTENTION_POSITIONS", 4)
    case = CASES["pixart"]
    model = build(case)
    whole = picture_to_itself(model, case, "transformer_blocks.0.attn1")[[3, 5]].unflatten(-1, (2, 3))
    wanted = torch.stack([whole[..., 0:2].mean((-2, -1)), whole[..., 1:3].mean((-2, -1))], -1)
    group, errors = recorded(model, case, StoreOptions(self_attention=True))
    assert not errors and group.accumulator.self_grid == (1, 2) and group.accumulator.self_attention is not None
    assert (group.accumulator.self_attention[0].double() - wanted).abs().max() < 1e-5


def test_another_number_of_tokens_is_not_taken_for_the_picture() -> None:
    """Maps are recorded all the same; masks do without."""
    case = CASES["pixart"]
    model = build(case)
    layer = model.get_submodule("transformer_blocks.0.attn1")
    # Something puts a token beside the picture's, for this attention alone.
    before = layer.register_forward_pre_hook(lambda m, args: (torch.cat([args[0], args[0][:, :1]], 1), *args[1:]))
    behind = layer.register_forward_hook(lambda m, args, out: out[:, :-1])
    group, errors = recorded(model, case, StoreOptions(self_attention=True))
    before.remove()
    behind.remove()
    assert not errors and group.accumulator.self_attention is None and group.accumulator.sums


def check_text(got: Any, p: Any, picture: Tensor, text: Tensor, case: Case, terms: int) -> None:
    """`p` float64 `[n, n]`, summed over heads and layers."""
    channels = got.to_text.shape[-1]
    order = [c for c in case.order[1] if c >= 0] if case.order is not None else range(min(len(text), channels - 3))
    to_image = torch.zeros(channels, picture.shape[1], dtype=torch.float64)
    to_text = torch.zeros(channels, channels, dtype=torch.float64)
    queries = torch.zeros(channels)
    for own, column in zip(text, order, strict=False):
        to_image[column + 1] += p[own][picture].sum(0)
        queries[column + 1] += terms
        for other, key in zip(text, order, strict=False):
            to_text[column + 1, key + 1] += p[own, other]
    (kept,) = got.to_image.values()
    there = queries > 0  # what is masked everywhere turns no key into NaN
    assert torch.equal(got.num_queries[0][there], queries[there])
    assert (kept[0].T.double() - to_image)[there].abs().max() / terms < 1e-5
    assert (got.to_text[0].double() - to_text)[there][:, there].abs().max() / terms < 1e-5
    assert float(to_image.std()) > 1e-3 and float(to_text.std()) > 1e-3


@pytest.mark.parametrize("small", [0, 2**17])
@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_a_large_grid_is_cut_into_cells(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 3 positions where four may be kept: (1, 2) cells, the positions 3 and 5 in their middle; and the means of their keys,
    which share the middle column."""
    monkeypatch.setattr(transformer_attention, "_SMALL", small)
    monkeypatch.setattr(self_attention_sums, "SELF_ATTENTION_POSITIONS", 4)
    case = CASES[name]
    model = build(case)
    group, errors = recorded(model, case, StoreOptions(self_attention=True))
    got, found = group.accumulator, joint_calls(model, case)
    assert not errors and found is not None and got.self_attention is not None
    calls, _, picture, _ = found
    whole = calls[0][picture[0]][:, picture[0]][[3, 5]].unflatten(-1, (2, 3))
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
    monkeypatch.setattr(self_attention_sums, "add_joint_self", never_called)
    case = CASES["flux"]
    monkeypatch.setattr(relation_sums, "add_text_queries", never_called)
    group, errors = recorded(build(case), case, StoreOptions())
    assert not errors and group.accumulator.self_attention is None and group.accumulator.relations.num_queries is None


def test_a_long_text_has_the_picture_in_coarser_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many values are kept of text->image: 10 channels of at most 4 cells, of 2 x 3 positions."""
    monkeypatch.setattr(relation_sums, "TEXT_TO_IMAGE_VALUES", 40)
    case = CASES["flux"]
    model = build(case)
    group, errors = recorded(model, case, StoreOptions(relations=TEXT))
    found = joint_calls(model, case)
    assert not errors and found is not None
    calls, _, picture, text = found
    kept = group.accumulator.relations.to_image[1, 2][0]
    whole = sum(calls)[text][:, picture[0]].unflatten(-1, (2, 3))  # type: ignore[index]
    wanted = torch.stack([whole[..., 0:2].mean((-2, -1)), whole[..., 1:3].mean((-2, -1))])
    assert (kept[:, 1:-2].double() - wanted).abs().max() < 1e-5 * len(calls)
