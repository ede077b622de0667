"""Layers that wait to be worked off together: the sums are the same, whatever the model does to its tensors meanwhile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from daam_core import pool
from daam_core.recorder import Keep, Recorder

LAYERS, KEYS = 12, 6


def summed(inference: bool = False, spoil: bool = False, keep: Keep | None = None, layers: int = LAYERS) -> Tensor:
    """Four steps of many small layers, `[1, 4, KEYS]`; `spoil`: the model writes into what it gave out."""
    recorder = Recorder(slice(1, 2), lambda keys, part: torch.eye(keys)[None], keep or Keep())
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(inference):
        for _ in range(4):
            for layer in range(layers):
                q, k = torch.randn(2, 4, 8, generator=generator), torch.randn(2, KEYS, 8, generator=generator)
                recorder.add_cross(layer, (2, 2), q, k, 2, 0.5)
                if spoil:
                    q *= 0
                    k *= 0
            recorder.end_step()
        sums = list(recorder.sums.values())
        recorder.release()
    return torch.stack([part.total for part in sums]).sum(0)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("spoil", [False, True])
def test_gathered_layers_sum_to_the_same(inference: bool, spoil: bool) -> None:
    """One by one (layers kept apart) and together, and where queries and keys are written to afterwards."""
    apart = summed(keep=Keep(layers=True))
    torch.testing.assert_close(summed(inference, spoil), apart, rtol=1e-5, atol=1e-6)


def test_more_layers_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_MANY", 5)
    torch.testing.assert_close(summed(), summed(keep=Keep(layers=True)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("room", [4, 128])
def test_keys_of_one_edition_are_copied_once(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every edition is one set of keys, which come and go, layer by layer; some steps leave layers out, as caches do.

    The sums are those of an explicit softmax in float64.
    """
    monkeypatch.setattr(pool, "_MANY", room)
    copied: list[int] = []
    copy = pool._copy

    def counted(pairs: list[tuple[Tensor, Tensor]]) -> None:
        copied.extend(x.shape[1] for _, x in pairs)
        copy(pairs)

    monkeypatch.setattr(pool, "_copy", counted)
    generator = torch.Generator().manual_seed(0)
    recorder = Recorder(slice(0, 1), lambda keys, part: torch.eye(keys)[None], Keep())
    keys = torch.randn(3, LAYERS, 1, KEYS, 8, generator=generator)
    expected = torch.zeros(1, 4, KEYS, dtype=torch.float64)
    editions = [0, 0, 1, 1, 1, 2, 0, 0]
    for step, edition in enumerate(editions):
        for layer in range(LAYERS if step != 4 else LAYERS - 5):
            q, k = torch.randn(1, 4, 8, generator=generator), keys[edition, layer]
            recorder.add_cross(layer, (2, 2), q, k, 2, 0.5, edition=edition)
            heads = [x.double().unflatten(-1, (2, 4)).transpose(1, 2) for x in (q, k)]
            expected += (heads[0] @ heads[1].transpose(-1, -2) * 0.5).softmax(-1).sum(1)
        recorder.end_step()
    (part,) = recorder.sums.values()
    torch.testing.assert_close(part.total.double(), expected, rtol=1e-5, atol=1e-6)
    assert copied.count(KEYS) == 4 * LAYERS  # editions 0, 1, 2 and 0 again
    recorder.release()


def test_without_copies_of_several_tensors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in PyTorch 2.0."""
    expected = summed()
    monkeypatch.delattr(torch, "_foreach_copy_")
    assert torch.equal(summed(), expected)


def test_layers_that_train_are_not_held_by_the_sums() -> None:
    recorder = Recorder(slice(0, 1), lambda keys, part: torch.eye(keys)[None], Keep())
    for layer in range(LAYERS):
        q, k = (torch.randn(1, n, 8, requires_grad=True) for n in (4, KEYS))
        recorder.add_cross(layer, (2, 2), q, k, 2, 0.5)
    recorder.end_step()
    (part,) = recorder.sums.values()
    assert not part.total.requires_grad
