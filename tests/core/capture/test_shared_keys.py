"""Steps whose keys stay the same: the sums are those of Eq. 6, and keys that change unnoticed are found."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.attention import scores as attention
from daam_core.capture.accumulator import Accumulator
from daam_core.capture.buffers import StoreOptions
from daam_core.errors import NothingRecorded

LAYERS, KEYS = 12, 6


def explicit(q: Tensor, k: Tensor) -> Tensor:
    """One layer's head sum `[images, n, KEYS]`, float64."""
    queries, keys = (x.double().unflatten(-1, (2, 4)).transpose(1, 2) for x in (q, k))
    return (queries @ keys.transpose(-1, -2) * 0.5).softmax(-1).sum(1)


def recorder(images: int = 1) -> Accumulator:
    return Accumulator(
        slice(1, 1 + images), lambda keys, part: torch.eye(keys).expand(images, -1, -1), StoreOptions(), hold=True
    )


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("budget", [2**21, 4096])
def test_sums_are_exact_whatever_layers_and_texts_come(
    budget: int, images: int, looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of all layers, of some, in another order, with another text from the middle on, with a layer of which nothing is
    known, and a step that is never finished; an explicit softmax in float64 says what is right."""
    monkeypatch.setattr("daam_core.capture.layer_batching.CPU_BYTES", 4 * budget)
    generator = torch.Generator().manual_seed(0)
    accumulator = recorder(images)
    texts = [torch.randn(LAYERS, 2 + images, KEYS, 8, generator=generator) for _ in range(2)]
    tokens = [object(), object()]
    total, late = torch.zeros(2, images, 4, KEYS, dtype=torch.float64)
    every, some = list(range(LAYERS)), [0, 3, 4, 5]
    plan = [(every, 0)] * 12 + [(some, 0), (some, 0), (every, 0), (every[::-1], 0), (every, 1), (every, 1), (every, 1)]
    for step, (layers, text) in enumerate(plan, 1):
        for layer in layers:
            q, k = torch.randn(2 + images, 4, 8, generator=generator), texts[text][layer].clone()
            known = None if step == 8 and layer == 7 else tokens[text]
            accumulator.add_cross(layer, (2, 2), q, k, 2, 0.5, keys=known)
            share = explicit(q[1:-1], k[1:-1])
            total, late = total + share, late + step**2 * share
        accumulator.end_step()
        if looked_at and step % 3 == 0:
            (part,) = accumulator.sums.values()
            torch.testing.assert_close(part.total.double(), total, rtol=1e-5, atol=1e-6)
    accumulator.add_cross(0, (2, 2), torch.randn(2 + images, 4, 8), texts[1][0], 2, 0.5, keys=tokens[1])
    accumulator.release()
    (part,) = accumulator.sums.values()
    torch.testing.assert_close(part.total.double(), total, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(part.time_weighted.double(), late, rtol=1e-5, atol=1e-5)
    assert part.num_terms == 2 * sum(len(layers) for layers, _ in plan)


def test_keys_are_copied_once_and_several_steps_are_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    original = attention.probabilities

    def counted(q: Tensor, k: Tensor, scale: float, *rest: Any) -> Tensor:
        calls.append((*q.shape[:2], k.shape[0]))
        return original(q, k, scale, *rest)

    monkeypatch.setattr(attention, "probabilities", counted)
    accumulator, keys, k = recorder(), object(), torch.randn(LAYERS, 2, KEYS, 8)
    for _ in range(9):
        for layer in range(LAYERS):
            accumulator.add_cross(layer, (2, 2), torch.randn(2, 4, 8), k[layer].clone(), 2, 0.5, keys=keys)
        accumulator.end_step()
    # The first step shows that nobody writes into what is given out; the next eight wait for each other.
    assert calls == [(2 * LAYERS, 8 * 4, 2 * LAYERS)]
    accumulator.release()
    assert calls[1:] == [(2 * LAYERS, 4, 2 * LAYERS)]


def test_weights_that_are_changed_behind_the_counters_are_found() -> None:
    """`weight.data += …` moves no version counter: the keys that are asked for in turn are not the held ones then."""
    accumulator, keys, k = recorder(), object(), torch.randn(LAYERS, 2, KEYS, 8)
    for step in range(12):
        for layer in range(LAYERS):
            own = k[layer] + (0.1 if step >= 4 and layer == 5 else 0)
            accumulator.add_cross(layer, (2, 2), torch.randn(2, 4, 8), own, 2, 0.5, keys=keys)
        accumulator.end_step()
    with pytest.raises(NothingRecorded, match="changed the weights of the model's keys"):
        accumulator.release()


def test_keys_that_are_written_to_while_their_step_waits_are_found() -> None:
    """Keys that are to be compared wait by reference after their step: a model that writes into them then is no map's."""
    accumulator, keys, k = recorder(), object(), torch.randn(LAYERS, 2, KEYS, 8)
    given: list[Tensor] = []
    for _ in range(4):
        for layer in range(LAYERS):
            given.append(k[layer].clone())
            accumulator.add_cross(layer, (2, 2), torch.randn(2, 4, 8), given[-1], 2, 0.5, keys=keys)
        accumulator.end_step()
    for own in given[-LAYERS:]:
        own.add_(1)
    for _ in range(2):  # and asking again does not help
        with pytest.raises(NothingRecorded, match="began to write into the model's queries or keys"):
            accumulator.release()


def test_a_model_that_runs_for_a_gradient_keeps_no_graph_of_steps_that_are_over() -> None:
    accumulator, keys, k = recorder(), object(), torch.randn(LAYERS, 2, KEYS, 8)
    made = []
    for _ in range(4):
        for layer in range(LAYERS):
            leaf = torch.randn(2, 4, 8, requires_grad=True)
            made.append(weakref.ref(leaf))
            accumulator.add_cross(layer, (2, 2), leaf * 1.0, k[layer].clone(), 2, 0.5, keys=keys)
            del leaf
        accumulator.end_step()
    assert not any(one() is not None for one in made)
    accumulator.release()


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("steps", [1, 4])
def test_step_sums_equal_an_explicit_computation(steps: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pictures, layers and steps, each weighted, in slices of any size, with and without memory to work in."""
    layers, heads, n, d = 3, 2, 5, 8
    q, k = torch.randn(steps, layers, images, n, heads * d), torch.randn(layers, images, KEYS, heads * d)
    selection = torch.randint(0, 2, (images, KEYS, 3)).float()
    weights = torch.rand(2, steps)
    apart = q.double().unflatten(-1, (heads, d)), k.double().unflatten(-1, (heads, d))
    p = (torch.einsum("jminhd,mikhd->jmihnk", *apart) * 0.3).softmax(-1).sum((1, 3))
    expected = torch.einsum("sj,jink,ikc->sinc", weights.double(), p, selection.double())
    # Room for more steps than there are, as when the sums are asked for in the middle.
    room = torch.empty(layers, images, heads, steps + 2, n, d)
    room[..., :steps, :, :] = q.unflatten(-1, (heads, d)).permute(1, 2, 4, 0, 3, 5)
    queries = room[..., :steps, :, :].flatten(0, 2)
    keys = k.unflatten(-1, (heads, d)).transpose(2, 3).flatten(0, 2)
    # Room for all layers; for one, and for two of as few steps as there are; for less than one.
    for budget in (2**23, 60 * images * heads * (steps + 2) * n * KEYS, 64):
        monkeypatch.setattr(attention, "CPU_BYTES", budget)
        for scratch in (None, attention.step_scratch(keys, images * heads, steps + 2, n)):
            into = torch.zeros(2, images, n, 3)
            attention.add_step_sums(into, queries, keys, selection, heads, 0.3, weights, scratch)
            torch.testing.assert_close(into.double(), expected, rtol=1e-5, atol=1e-6)


def test_step_sums_of_many_layers_are_exact_to_single_precision() -> None:
    """SDXL has 60 layers at one resolution: their sum over heads and steps is as good as float32 numbers are."""
    layers, heads, steps, n, d, columns = 60, 4, 8, 16, 16, 77
    q, k = torch.randn(layers * heads, steps, n, d), torch.randn(layers * heads, columns, d)
    weights = torch.stack([torch.ones(steps), torch.arange(1.0, steps + 1).square()])
    p = (torch.einsum("bsnd,bkd->bsnk", q.double(), k.double()) * 0.25).softmax(-1).sum(0)
    expected = torch.einsum("js,snk->jnk", weights.double(), p)[:, None]
    into = torch.zeros(2, 1, n, columns)
    scratch = attention.step_scratch(k, heads, steps, n)
    attention.add_step_sums(into, q, k, torch.eye(columns)[None], heads, 0.25, weights, scratch)
    assert ((into.double() - expected).abs() / expected).max() < 1e-6
