"""Recordings found by the latents that samplers gave out, without ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch

Pack = Callable[[str], ModuleType]


def test_a_latent_that_a_recorded_sampler_gave_out_is_known_as_it_is(pack: Pack) -> None:
    """One of a batch, too, and one whose recording was dropped since; of a latent that was enlarged, nobody can say."""
    store = pack("nodes.capture.recording_store").RecordingStore(pictures=1)
    first, later = torch.rand(2, 4, 3, 3), torch.rand(1, 4, 3, 3)
    assert not store.gave_out(first)
    store.keep([first], None, "it failed")
    assert store.gave_out(first) and store.gave_out(first[1:]) and not store.gave_out(later)
    store.keep([later], None, "it failed")
    assert store.gave_out(first[1:]) and store.gave_out(later)
    assert not store.gave_out(first.repeat_interleave(2, -1)) and not store.gave_out(torch.zeros(1, 4, 3, 3))


def test_steps_that_are_split_between_two_samplers_are_told(pack: Pack) -> None:
    told = pack("nodes.capture.missing_maps").later_run_of
    assert told(1, False) == ""
    assert "these maps are of its own steps alone" in told(1, True)
    assert "One node ran the sampler 3 times" in told(3, True) and told(3, True) == told(3, False)
