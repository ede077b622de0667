"""The heat of steps that are finished, while a recording goes on, against the equation written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from daam_core.capture.buffers import BatchSlice, StoreOptions
from daam_core.capture.heat_so_far import heat_so_far, words_are_known
from daam_core.capture.recording import Recording
from daam_core.capture.region import Area
from daam_core.errors import BadArgument, WordNotFound
from daam_core.prompt.prompt import Prompt

from ..models import tokenizer

SIZE, WIDTH, TEXT = (24, 36), 8, "a red house"
GRIDS = ((4, 6), (2, 3))
COLUMN = 3
"""Where "house" stands, behind the start token."""


def _recording(prompt: Prompt) -> Recording:
    recording = Recording(StoreOptions())
    recording.add_group("prompt", (0, 1), [prompt] * 2)
    return recording


def _step(recording: Recording, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A step of five layers at two grids; gives the equation's map of `COLUMN` for both pictures, float64 `[2, H, W]`."""
    expected = torch.zeros(2, *SIZE, dtype=torch.float64)
    for number in range(5):
        grid = GRIDS[number % 2]
        q = torch.randn(2, grid[0] * grid[1], WIDTH, generator=generator)
        k = torch.randn(2, columns, WIDTH, generator=generator)
        layer = recording.layer(number, str(number), "mid", 2, 0.5)
        recording.groups[0].accumulator.add_cross(layer, grid, q, k, 2, 0.5)
        heads_q, heads_k = (x.double().unflatten(-1, (2, -1)).transpose(1, 2) for x in (q, k))
        shares = torch.softmax(heads_q @ heads_k.transpose(-1, -2) * 0.5, -1)[..., COLUMN].sum(1)
        expected += F.interpolate(shares.unflatten(-1, grid)[None], SIZE, mode="bicubic", align_corners=False)[0]
    return expected


def test_every_step_s_heat_is_the_equation_s_and_the_recording_goes_on() -> None:
    ids = tokenizer()(TEXT, padding="max_length", max_length=77).input_ids
    prompt = Prompt.from_ids(ids, tokenizer(), text=TEXT)
    recording, generator = _recording(prompt), torch.Generator().manual_seed(1)
    assert heat_so_far(recording, 0, "house", SIZE) is None and words_are_known(recording, 0)
    expected = torch.zeros(2, *SIZE, dtype=torch.float64)
    for step in range(1, 4):
        expected += _step(recording, 77, generator)
        if step == 2:
            heat_so_far(recording, 0, "house", SIZE)  # in the middle of a step: what is not finished does not count
        recording.end_step(torch.tensor([9 - step]))
        for image in (0, 1):
            found = heat_so_far(recording, image, "house", SIZE)
            assert found is not None
            torch.testing.assert_close(found.double(), expected[image] / (step * 5 * 2), rtol=1e-5, atol=1e-7)
    with pytest.raises(WordNotFound, match="'dragon' is not in the prompt"):
        heat_so_far(recording, 0, "dragon", SIZE)
    final = recording.finish(1, SIZE).heat_map("house", SIZE)
    torch.testing.assert_close(final.double(), expected[1], rtol=1e-5, atol=1e-5)


def test_words_of_numbered_columns_and_the_sums_of_one_area() -> None:
    """Of a crop that is pasted into a picture, what its preview shows is the crop's own sums; the picture's has them at their
    place."""
    recording, generator = _recording(Prompt.by_index(77)), torch.Generator().manual_seed(1)
    prompt = Prompt.from_ids(tokenizer()(TEXT, padding="max_length", max_length=77).input_ids, tokenizer(), text=TEXT)
    area = Area(0.5, 0.5, 0.5, 0.5)
    q, k = torch.randn(2, 24, WIDTH, generator=generator), torch.randn(2, 77, WIDTH, generator=generator)
    layer = recording.layer(0, "0", "mid", 2, 0.5)
    recording.groups[0].accumulator.add_cross(layer, (4, 6), q, k, 2, 0.5, BatchSlice(0, 2, 0, area))
    recording.end_step(torch.ones(1))
    heads_q, heads_k = (x.double().unflatten(-1, (2, -1)).transpose(1, 2) for x in (q, k))
    shares = torch.softmax(heads_q @ heads_k.transpose(-1, -2) * 0.5, -1)[0, ..., COLUMN].mean(0).reshape(4, 6)
    own = heat_so_far(recording, 0, "house", (4, 6), area, prompt)
    whole = heat_so_far(recording, 0, "house", (8, 12), prompt=prompt)
    assert own is not None and whole is not None
    torch.testing.assert_close(own.double(), shares, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(whole[4:, 6:], own)
    assert float(whole[:4].abs().max()) == float(whole[:, :6].abs().max()) == 0
    with pytest.raises(BadArgument, match="columns"):
        heat_so_far(recording, 0, "3", (4, 6), area, Prompt.by_index(50))


def test_without_words_or_after_a_failure_there_is_none() -> None:
    recording = _recording(Prompt.by_index(7))
    _step(recording, 7, torch.Generator().manual_seed(2))
    recording.end_step(torch.ones(1))
    assert not words_are_known(recording, 0)
    assert heat_so_far(recording, 0, "3", SIZE) is None
    recording.fail(RuntimeError("gone"))
    assert heat_so_far(recording, 0, "3", SIZE) is None
