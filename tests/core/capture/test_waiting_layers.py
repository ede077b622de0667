"""Small layers of several steps against the same layers one by one, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from daam_core.attention.concepts import Shares
from daam_core.capture.concept_sums import PRESENCE_POWER, GridConceptSums
from daam_core.capture.region import WHOLE
from daam_core.capture.waiting_layers import WaitingLayers
from daam_core.errors import NothingRecorded

HEADS, SCALE, GRID = 2, 0.7, (3, 4)
OWN, BELOW, AMONG = [{2}, {3, 4}], [{0, 1, 2}, {1, 3, 4}], [{0, 1, 2, 5}, {0, 1, 3, 4, 5}]
SHARES = Shares.of(6, OWN, (BELOW, AMONG))


def waiting(hold: bool = True) -> tuple[GridConceptSums, WaitingLayers]:
    sums = GridConceptSums.zeros(GRID, WHOLE, len(OWN), torch.device("cpu"))
    return sums, WaitingLayers(sums, SHARES, HEADS, SCALE, hold)


def written_out(q: Tensor, k: Tensor) -> Tensor:
    """What one layer adds: `[2, n, concepts]`."""
    exp = (
        q.double().unflatten(-1, (HEADS, -1)).transpose(0, 1) @ k.double().unflatten(-1, (HEADS, -1)).permute(1, 2, 0)
    ) * SCALE
    exp = exp.exp()
    found = torch.zeros(2, q.shape[0], len(OWN), dtype=torch.float64)
    for c, own in enumerate(OWN):
        above = exp[..., sorted(own)].sum(-1)
        place, presence = (above / exp[..., sorted(below[c])].sum(-1) for below in (BELOW, AMONG))
        spread = ((presence - presence.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True)
        found[0, :, c], found[1, :, c] = place.sum(0), (presence * spread).sum(0)
    return found


@pytest.mark.parametrize("hold", [True, False])
def test_layers_of_many_steps_are_those_one_by_one(hold: bool) -> None:
    """More steps than wait for each other; other keys and one layer more from a step on; a step that is left in the middle."""
    sums, layers = waiting(hold)
    total, late = (torch.zeros(2, 12, len(OWN), dtype=torch.float64) for _ in range(2))
    keys = [torch.randn(6, 8) for _ in range(2)]
    for step in range(1, 13):
        if step == 11:
            keys = [torch.randn(6, 8) for _ in range(3)]
        for k in keys:
            q = torch.randn(2, 12, 8)
            layers.add(q, 1, k)
            one = written_out(q[1], k)
            total += one
            late[0] += one[0] * step**2
            late[1] += one[1] * float(step) ** PRESENCE_POWER
        layers.end_step(step)
    layers.add(torch.randn(2, 12, 8), 1, keys[0])
    layers.finish()
    for own, true in ((sums.total, total), (sums.late, late)):
        for part in (0, 1):
            assert (own[part] - true[part]).abs().max() <= 1e-5 * true[part].max()
    assert not sums.dirty and sums.step_terms == HEADS * (2 * 10 + 3 * 2 + 1)


def test_what_waits_in_the_present_step_goes_to_it() -> None:
    sums, layers = waiting()
    q, k = torch.randn(1, 12, 8), torch.randn(6, 8)
    layers.add(q, 0, k)
    layers.flush()
    assert sums.dirty and not sums.total.any()
    assert (sums.now - written_out(q[0], k)).abs().max() <= 1e-5


def test_queries_that_are_written_into_are_copied_from_the_first_step_on() -> None:
    sums, layers = waiting()
    k, true = torch.randn(6, 8), torch.zeros(2, 12, len(OWN), dtype=torch.float64)
    for step in (1, 2, 3):
        q = torch.randn(1, 12, 8)
        layers.add(q, 0, k)
        true += written_out(q[0], k)
        q.zero_()
        layers.end_step(step)
    layers.finish()
    assert (sums.total - true).abs().max() <= 1e-5


def test_who_begins_to_write_into_them_is_noticed() -> None:
    _, layers = waiting()
    k = torch.randn(6, 8)
    layers.add(torch.randn(1, 12, 8), 0, k)
    layers.end_step(1)
    q = torch.randn(1, 12, 8)
    layers.add(q, 0, k)
    q.add_(1)
    with pytest.raises(NothingRecorded, match="write into the model's queries"):
        layers.end_step(2)


def test_inference_mode_has_no_counter_and_ends_before_the_sums_are_read() -> None:
    k, true = torch.randn(6, 8), torch.zeros(2, 12, len(OWN), dtype=torch.float64)
    with torch.inference_mode():
        sums, layers = waiting()
        for step in (1, 2):
            q = torch.randn(1, 12, 8)
            layers.add(q, 0, k)
            true += written_out(q[0], k)
            q.zero_()
            layers.end_step(step)
    layers.finish()
    assert (sums.total - true).abs().max() <= 1e-5
