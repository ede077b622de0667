"""A recording with torch alone: sides, layers, steps, failures, against sums written out."""

from __future__ import annotations

import pytest
import torch

from daam_core.capture.buffers import StoreOptions
from daam_core.capture.recording import NO_STEP, Recording
from daam_core.errors import BadArgument, NothingRecorded
from daam_core.prompt.prompt import Prompt

GRID, KEYS, WIDTH = (2, 3), 4, 5


def _prompt() -> Prompt:
    return Prompt.by_index(KEYS)


def _step(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 6, WIDTH, generator=generator), torch.randn(4, KEYS, WIDTH, generator=generator)


def test_both_sides_of_two_pictures_are_the_equations() -> None:
    """Rows 0 and 1 are the negative prompt's, 2 and 3 the prompt's; two layers, three steps, one head."""
    recording = Recording(StoreOptions())
    prompt = recording.add_group("prompt", (0, 1), [_prompt()] * 2, index=slice(2, 4))
    negative = recording.add_group("negative", (0, 1), [_prompt()] * 2, index=slice(0, 2))
    generator = torch.Generator().manual_seed(3)
    expected = torch.zeros(4, KEYS, *GRID, dtype=torch.float64)
    for step in range(3):
        for name in ("first", "second"):
            q, k = _step(generator)
            number = recording.layer(name, name, "mid", 1, 0.5)
            for group in (prompt, negative):
                group.accumulator.add_cross(number, GRID, q, k, 1, 0.5)
            p = torch.softmax(q.double() @ k.double().transpose(1, 2) * 0.5, -1)
            expected += p.transpose(1, 2).unflatten(-1, GRID)
        recording.end_step(torch.tensor([900 - step]))
    for image in (0, 1):
        maps = recording.finish(image, (16, 24))
        assert maps.negative is not None
        torch.testing.assert_close(maps.sums[GRID][1 : KEYS + 1].double(), expected[2 + image], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(maps.negative.sums[GRID][1 : KEYS + 1].double(), expected[image], rtol=1e-5, atol=1e-5)
        assert maps.timesteps == (900.0, 899.0, 898.0)
        assert [layer.name for layer in maps.layers] == ["first", "second"]
    with pytest.raises(BadArgument, match="no picture 2"):
        recording.finish(2, (16, 24))


def test_the_first_error_ends_the_recording_and_is_the_sentence() -> None:
    recording = Recording(StoreOptions())
    recording.add_group("prompt", (0,), [_prompt()])
    recording.fail(NothingRecorded("a node cuts the picture"))
    recording.fail(RuntimeError("and this came of it"))
    assert "a node cuts the picture" in recording.failure and "came of it" not in recording.failure
    with pytest.raises(NothingRecorded, match="a node cuts the picture"):
        recording.finish(0, (8, 8))
    assert recording.groups == []


def test_a_recording_without_a_step_says_so() -> None:
    recording = Recording(StoreOptions())
    recording.add_group("prompt", (0,), [_prompt()])
    with pytest.raises(NothingRecorded, match=NO_STEP[:20]):
        recording.finish(0, (8, 8))


def test_a_side_that_comes_later_counts_the_steps_before_it() -> None:
    """Steps have one number on both sides: late ones weigh the square of it."""
    recording = Recording(StoreOptions())
    first = recording.add_group("prompt", (0,), [_prompt()], index=slice(2, 3))
    generator = torch.Generator().manual_seed(4)
    q, k = _step(generator)
    first.accumulator.add_cross(recording.layer(0, "layer", "mid", 1, 1.0), GRID, q, k, 1, 1.0)
    recording.end_step(1.0)
    second = recording.add_group("negative", (0,), [_prompt()], index=slice(0, 1))
    for group in (first, second):
        group.accumulator.add_cross(0, GRID, q, k, 1, 1.0)
    recording.end_step(0.5)
    negative = recording.finish(0, (8, 8)).negative
    assert negative is not None
    torch.testing.assert_close(negative.time_weighted[GRID], 4 * negative.sums[GRID])
