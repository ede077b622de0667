"""Every family of transformers, as a small random model: the picture untouched, the layout as a probe finds it, Eq. 6."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from daam_core.capture import transformer_attention
from daam_core.capture.buffers import StoreOptions
from daam_core.capture.families import FAMILIES, family_of
from daam_core.capture.family import Family
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.refused_families import REFUSED
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.token_layout import TokenLayout
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.errors import UnsupportedModel
from daam_core.prompt.prompt import Prompt
from daam_core.types import Side

from .attention_witness import Witness, text_and_picture
from .transformer_models import CASES, Case, build


def run(model: nn.Module, given: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        out = model(**given, return_dict=False)[0]
    return torch.stack(list(out)) if isinstance(out, list) else out


def recorded(model: nn.Module, case: Case) -> tuple[TransformerRecording, Tensor, list[Exception]]:
    """One call with the hooks in: row 0 is the negative prompt's, row 1 the prompt's; a single row is the prompt's."""
    family = family_of(model)
    rows = family.text_rows(case.given)
    texts = [EncodedText(side, 0, 0, row) for side, row in zip(sides(case), rows, strict=True)]

    def prompt(row: EncodedText, family: Family, columns: Sequence[int]) -> Prompt:
        return Prompt.by_index(sum(columns))

    recording = TransformerRecording(lambda: texts, prompt, StoreOptions())
    errors: list[Exception] = []
    with TransformerHooks(model, ModelRecorder(model, family, 0, lambda: recording, errors.append)):
        out = run(model, case.given)
    recording.end_step()
    return recording, out, errors


def sides(case: Case) -> tuple[Side, ...]:
    """Whose each row of the batch is."""
    return ("negative", "prompt") if case.rows == 2 else ("prompt",)


@pytest.fixture(params=CASES)
def case(request: Any) -> Case:
    return CASES[request.param]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's log-sum-exp is taken at any size, as it is where pictures are large."""
    monkeypatch.setattr(transformer_attention, "_SMALL", 0)


@pytest.mark.usefixtures("watched")
def test_the_picture_is_untouched_and_every_layer_read(case: Case) -> None:
    model = build(case)
    before = run(model, case.given)
    recording, during, errors = recorded(model, case)
    assert not errors, errors
    assert torch.equal(during, before) and torch.equal(run(model, case.given), before)
    modules = [name for name, part in model.named_modules() if hasattr(part, "processor")]
    layers = [name for name in modules if family_of(model).is_text_layer(name) and name not in case.textless]
    assert [layer.name for layer in recording.recording.layers] == layers and layers
    undeclared = arguments_that_count(model, case) - set(family_of(model).layout_arguments)
    assert not undeclared, "a layout is kept for other calls of the same shapes: these belong to `layout_arguments`"


def arguments_that_count(model: nn.Module, case: Case) -> set[str]:
    """The tensors among the arguments of a call by whose numbers its layout changes, or cannot be made any more."""
    family, given = family_of(model), inspect.signature(type(model).forward).bind(model, **case.given)
    given.apply_defaults()
    own, found = places_of(family.layout(model, given.arguments)), set()
    for name, value in case.given.items():
        if isinstance(value, Tensor):
            for other in (torch.zeros_like(value), torch.ones_like(value), value.flip(-1)):
                with contextlib.suppress(Exception):
                    if places_of(family.layout(model, {**given.arguments, name: other})) == own:
                        continue
                found.add(name)
    return found


def places_of(layout: TokenLayout) -> Any:
    """All that a layout says, in what can be compared."""
    rows = {size: [(r.picture, r.text, list(r.columns)) for r in own or ()] for size, own in layout.rows.items()}
    return dataclasses.replace(layout, rows={}).__dict__, rows


@pytest.mark.usefixtures("watched")
def test_the_sums_are_those_of_the_equation(case: Case) -> None:
    """Against float64 probabilities over all keys, at the keys and queries that a probe with NaN finds."""
    model = build(case)
    recording, _, errors = recorded(model, case)
    assert not errors, errors
    found = text_and_picture(model, case)
    with Witness(model, case.apart) as witness:
        run(model, case.given)
    for row, side in enumerate(sides(case)):
        (group,) = (group for group in recording.recording.groups if group.side == side)
        (got,) = group.accumulator.sums.values()
        assert got.grid == case.grid[1:]
        maps = got.total[0]
        wanted = expected(witness, found, case, row, maps.shape[-1] - 3)
        error = (maps[:, 1 : wanted.shape[1] + 1].double() - wanted).abs().max() / got.num_terms
        assert error < 1e-5
        assert float(wanted.std() / wanted.mean()) > 0.02, "maps that are alike everywhere prove nothing"


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", ["flux", "chroma", "lumina 2", "krea 2", "pixart"])
def test_a_kernel_that_gives_no_log_sum_exp_away(name: str) -> None:
    """The whole softmax is computed then: without a mask, with one that is added or a choice, with grouped keys."""
    case = CASES[name]
    model = build(case)
    wanted, _, _ = recorded(model, case)
    with sdpa_kernel(SDPBackend.MATH):
        before = run(model, case.given)
        got, during, errors = recorded(model, case)
    assert not errors and torch.equal(during, before)
    for one, other in zip(got.recording.groups, wanted.recording.groups, strict=True):
        (a,), (b,) = one.accumulator.sums.values(), other.accumulator.sums.values()
        assert (a.total - b.total).abs().max() / a.num_terms < 1e-5


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", ["flux", "sd3", "pixart", "z-image"])
def test_half_precision(name: str) -> None:
    case = CASES[name]
    model = build(case).bfloat16()

    def half(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.bfloat16() if x.is_floating_point() else x
        return [half(y) for y in x] if isinstance(x, list) else x

    halved = replace(case, given={name: half(value) for name, value in case.given.items()})
    before = run(model, halved.given)
    got, during, errors = recorded(model, halved)
    assert not errors and torch.equal(during, before)
    wanted, _, _ = recorded(build(case), case)
    for one, other in zip(got.recording.groups, wanted.recording.groups, strict=True):
        (a,), (b,) = one.accumulator.sums.values(), other.accumulator.sums.values()
        assert (a.total - b.total).abs().max() / a.num_terms < 0.05


def expected(witness: Witness, found: tuple[int, Tensor, Tensor], case: Case, row: int, columns: int) -> Tensor:
    """Head and layer sums `[frames * h * w, columns]` of one row of the batch."""
    first, keys, queries = found
    size = witness.calls[first][0].shape[-2], witness.calls[first][1].shape[-2]
    apart = keys.shape[0] < case.rows  # one call for each row
    frames = keys.shape[0] // case.rows if not apart else 1
    total = torch.zeros(prod(case.grid), columns, dtype=torch.float64)
    seen = 0
    for index in range(first, len(witness.calls)):
        q, k, *_ = witness.calls[index]
        if apart:
            seen += 1
            if (seen - 1) % 2 != row:
                continue
            n = prod(case.grid)
            p = witness.probabilities(index)[0].sum(0)[:n, n:]
        elif case.beside and k.shape[-2] == keys[row].sum() and q.shape[-2] == queries[row].sum():
            p = witness.probabilities(index)[row].sum(0)
        elif (q.shape[-2], k.shape[-2]) != size or q.shape[0] != keys.shape[0]:
            continue
        else:
            at = range(row * frames, (row + 1) * frames)
            own = prod(case.grid) // frames  # a refiner makes padding behind the picture turn NaN too
            places = [queries[r].nonzero().flatten()[:own] for r in at]
            p = torch.cat([witness.probabilities(index)[r].sum(0)[x][:, keys[r]] for r, x in zip(at, places, strict=True)])
        order = [c for c in case.order[row] if c >= 0] if case.order is not None else list(range(p.shape[1]))
        for key, column in enumerate(order[: p.shape[1]]):
            if column < columns:
                total[:, column] += p[:, key]
    return total


def test_one_text_of_framepack_alone_is_cut_to_what_its_mask_keeps() -> None:
    """A batch of one has no mask in its attention, and no padding among its keys."""
    case = CASES["framepack"]
    model = build(case)

    def second(value: Any) -> Any:
        return value[1:] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == 2 else value

    places = {name: value for name, value in case.given.items() if name.startswith("indices")}
    alone = {**{name: second(value) for name, value in case.given.items()}, **places}
    texts = [EncodedText("prompt", 0, 0, alone["encoder_hidden_states"][0])]
    recording = TransformerRecording(lambda: texts, lambda row, family, n: Prompt.by_index(sum(n)), StoreOptions())
    errors: list[Exception] = []
    with TransformerHooks(model, ModelRecorder(model, family_of(model), 0, lambda: recording, errors.append)):
        run(model, alone)
    recording.end_step()
    assert not errors, errors
    (sums,) = recording.recording.groups[0].accumulator.sums.values()
    kept = int(alone["encoder_attention_mask"].sum())
    by_column = sums.total[0].sum(0)[1:]
    assert kept == 4 and bool((by_column[:kept] > 0).all()) and not by_column[kept:7].any()


def test_as_many_keys_of_a_picture_as_of_text_are_refused_where_only_their_number_tells_them_apart() -> None:
    case = CASES["cosmos transfer"]
    text, _ = case.given["encoder_hidden_states"]
    alike = replace(case, given={**case.given, "encoder_hidden_states": (text, torch.randn(*text.shape[:2], 8))})
    model = build(alike)
    before = run(model, alike.given)
    _, during, errors = recorded(model, alike)
    assert torch.equal(during, before)
    assert "has as many keys of a picture as of text" in str(errors[0])


def test_every_family_has_a_case_and_every_case_a_family() -> None:
    families = {family_of(build(case)).name for case in CASES.values()}
    assert {family.name for family in FAMILIES} == families


def test_families_of_videos_are_those_whose_cases_have_frames() -> None:
    videos = {path for family in FAMILIES if family.video for path in family.classes}
    assert {name for name, case in CASES.items() if (case.module in videos) != (case.grid[0] > 1)} == set()


def test_every_transformer_of_diffusers_is_read_or_refused_by_name() -> None:
    """All classes of all modules, so that a new one of a release does not go unnoticed."""
    from diffusers import ModelMixin
    from diffusers.models import transformers

    found = set()
    for module in pkgutil.iter_modules(transformers.__path__):
        for name, value in vars(importlib.import_module(f"{transformers.__name__}.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, ModelMixin) and value.__module__.endswith(f".{module.name}"):
                found.add(f"{module.name}.{name}")
    read = [path for family in FAMILIES for path in family.classes]
    assert len(read) == len(set(read)) and not set(read) & set(REFUSED)
    own = {path for path in found if not path.startswith("dual_transformer_2d")}
    assert own - set(read) - set(REFUSED) == set(), "neither read nor refused"
    assert (set(read) | set(REFUSED)) - found == set(), "no class of diffusers"


@pytest.mark.parametrize("path", REFUSED)
def test_a_refused_class_is_named_with_its_reason(path: str) -> None:
    """Also where it is made from one that is read, as Wan Animate 2 and AnyFlow with FAR might be."""
    module, name = path.rsplit(".", 1)
    kind = getattr(importlib.import_module(f"diffusers.models.transformers.{module}"), name)
    with pytest.raises(UnsupportedModel) as refused:
        family_of(object.__new__(kind))
    assert str(refused.value) == f"{name} cannot be read: {REFUSED[path]}."


def test_the_table_of_models_lists_every_family_and_every_refusal() -> None:
    text = (Path(__file__).parents[3] / "docs" / "models-checked.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert {cells[1].strip() for cells in rows} == {family.name for family in FAMILIES}
    assert all("NO" not in cells for cells in rows)
    assert all(f"`{path.rsplit('.', 1)[1]}`: {reason}." in text for path, reason in REFUSED.items())
