"""Prompts that one picture was made of in succession, as one recorded image."""

from __future__ import annotations

from dataclasses import replace

import torch

from daam_core.maps.data import Detail, LayerInfo, RecordedImage
from daam_core.maps.succession import join_in_succession
from daam_core.prompt.prompt import Prompt

GRID = (2, 3)


def part(words: int, steps: int, value: float, late: int = 0) -> RecordedImage:
    """A part of so many words, whose channels all hold `value`, in the last `steps - late` of `steps` steps."""
    maps = torch.full((words + 3, *GRID), value)
    detail = torch.full((steps, 1, words, *GRID), value)
    detail[:late] = 0
    return RecordedImage(
        sums={GRID: maps},
        time_weighted={GRID: 2 * maps},
        num_terms={GRID: 4 * (steps - late)},
        layers=(LayerInfo("a", GRID, 4, "mid"),),
        detail=Detail({GRID: detail}, {GRID: (0,)}, True),
        heads=None,
        self_attention=None,
        prompt=Prompt.by_index(words),
        steps=steps,
        timesteps=tuple(float(s) for s in range(steps)),
    )


def test_one_part_is_itself() -> None:
    one = part(2, 3, 1.0)
    assert join_in_succession([one]) is one


def test_words_follow_each_other_and_what_they_share_adds_up() -> None:
    first, second = part(2, 2, 1.0), part(1, 5, 3.0, late=2)
    whole = join_in_succession([first, second])
    assert whole.prompt.labels == ["0", "1", "0#2"]
    assert whole.sums[GRID][:, 0, 0].tolist() == [4.0, 1.0, 1.0, 3.0, 4.0, 4.0]
    assert whole.time_weighted[GRID][:, 0, 0].tolist() == [8.0, 2.0, 2.0, 6.0, 8.0, 8.0]
    assert (whole.num_terms, whole.steps, len(whole.timesteps)) == ({GRID: 8 + 12}, 5, 5)
    assert whole.detail is not None
    values = whole.detail.values[GRID]
    assert values.shape == (5, 1, 3, *GRID)
    assert values[:, 0, :, 0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 3], [0, 0, 3], [0, 0, 3]]


def test_detail_that_one_part_lacks_is_given_up() -> None:
    assert join_in_succession([part(1, 2, 1.0), replace(part(1, 2, 1.0), detail=None)]).detail is None
