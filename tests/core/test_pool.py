"""Layers that wait to be worked off together: the sums are the same, and a model that writes into its queries is found out."""

from __future__ import annotations

import pytest
import torch

from daam_core.pool import PROBED_LAYERS
from daam_core.recorder import Keep, Recorder

LAYERS, KEYS = 3 * PROBED_LAYERS, 6


def summed(inference: bool, spoil: int | None = None, keep: Keep | None = None) -> torch.Tensor:
    """Four steps of many small layers, `[1, 4, KEYS]`; `spoil` is a layer whose queries are written to afterwards."""
    recorder = Recorder(slice(0, 1), lambda keys, part: torch.eye(keys)[None], keep or Keep())
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(inference):
        for _ in range(4):
            for layer in range(LAYERS):
                q, k = torch.randn(1, 4, 8, generator=generator), torch.randn(1, KEYS, 8, generator=generator)
                recorder.add_cross(layer, (2, 2), q, k, 2, 0.5)
                if layer == spoil:
                    q *= 0
            recorder.end_step()
        slots = list(recorder.slots.values())
        recorder.release()
    return torch.stack([slot.total for slot in slots]).sum(0)


@pytest.mark.parametrize("inference", [False, True])
def test_gathered_layers_sum_to_the_same(inference: bool) -> None:
    """One by one (layers kept apart) and together."""
    torch.testing.assert_close(summed(inference), summed(inference, keep=Keep(layers=True)), rtol=1e-5, atol=1e-6)


def test_writing_into_queries_is_noticed_at_once() -> None:
    """Early: layers are no longer gathered, and the sums are right. Late: the recording stops with its reason."""
    torch.testing.assert_close(summed(False, spoil=0), summed(False), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="in place"):
        summed(False, spoil=LAYERS - 1)


def test_writing_into_queries_in_inference_mode_is_noticed_at_the_end() -> None:
    """Tensors do not say there that they were written to; copies of the first ones do."""
    with pytest.raises(RuntimeError, match="in place"):
        summed(True, spoil=0)
