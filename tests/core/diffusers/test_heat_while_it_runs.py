"""A word's heat out of a pipeline's callback: that of the finished maps at the last step, and nobody else's business."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from daam_core import load_tiny, trace
from daam_core.errors import WordNotFound

SIZE = (32, 48)


def test_every_step_s_heat_leads_to_the_finished_map_and_the_latents_are_the_same() -> None:
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"num_inference_steps": 3, "height": 64, "width": 96, "output_type": "latent"}

    def paint(**more: Any) -> torch.Tensor:
        found: torch.Tensor = pipe(
            ["a red house", "a tree"], generator=torch.Generator().manual_seed(5), **asked, **more
        ).images
        return found

    heats: list[torch.Tensor] = []

    def callback(_pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        heat = recording.heat_so_far("tree", SIZE, 1)
        assert heat is not None and tuple(heat.shape) == SIZE
        heats.append(heat)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(recording.heat_so_far, "tree", SIZE, 1).result() is None
        with pytest.raises(WordNotFound):
            recording.heat_so_far("tree", SIZE, 0)
        return given

    bare = paint()
    with trace(pipe) as recording:
        assert recording.heat_so_far("tree", SIZE) is None, "nothing runs"
        latents = paint(callback_on_step_end=callback)
    assert torch.equal(bare, latents) and len(heats) == 3
    maps = recording.heat_maps(1)
    expected = maps.heat_map("tree", SIZE) / sum(maps.num_terms.values())
    torch.testing.assert_close(heats[-1], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(heats[0], heats[-1], rtol=1e-3)
