"""Which pictures a model was shown in a step, by latents made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.capture.given_latents import GivenLatents
from daam_core.errors import UnsupportedModel


def latents(seed: int, channels: int = 4) -> Tensor:
    return torch.randn(2, channels, 6, 8, generator=torch.Generator().manual_seed(seed))


BOTH = {0: ("a", 0), 1: ("b", 1)}
"""Whose the two rows of latents are: a text of each picture."""


@pytest.mark.parametrize(
    "shown",
    [
        latents(0),
        0.3 * latents(0),
        latents(0).half(),
        list(latents(0)),
        torch.cat([latents(0), latents(1, 5)], dim=1),  # a mask and a picture behind them, as inpainting has
    ],
)
def test_another_picture_shown_behind_the_one_that_is_painted_is_left_out(shown: Tensor | list[Tensor]) -> None:
    step = GivenLatents()
    step.begin()
    step.add(shown, BOTH)
    step.add(latents(2), BOTH)
    step.require_painted(latents(0))
    # A scheduler that is asked once more in the step, of what the model was not shown as a picture: the sound of a video.
    step.require_painted(latents(3)[..., 0])


def test_the_same_picture_shown_again_is_none_other_whatever_the_scheduler_is_given() -> None:
    step = GivenLatents()
    step.add(latents(0).half(), BOTH)
    step.add(latents(0).half()[1:], {0: ("b", 1)})
    step.add(torch.cat([latents(0), latents(0)]).half(), BOTH, {2: (0, 1), 3: (0, 1)})
    step.require_painted(latents(3)[:, 0])


@pytest.mark.parametrize(
    "calls",
    [
        [(latents(1), BOTH), (latents(2), BOTH)],
        # Of the second picture alone, which has the first one's latents there; ahead of the picture in one batch.
        [(latents(2)[:1].expand(2, -1, -1, -1), BOTH), (latents(2), BOTH)],
        [(torch.cat([latents(1), latents(2)]), BOTH, {2: (0,), 3: (1,)})],
        # Its text comes in a second call, the negative prompt's in the first.
        [(latents(2), {0: ("negative", 0)}), (latents(1), {0: ("a", 0)}), (latents(2), {0: ("a", 0)})],
    ],
)
def test_another_picture_shown_ahead_of_the_one_that_is_painted_is_refused(calls: list[tuple[Any, ...]]) -> None:
    """Of a batch the first row alone was compared, and that with the first call of the step."""
    step = GivenLatents()
    for call in calls:
        step.add(*call)
    with pytest.raises(UnsupportedModel, match="the first is not the one that is painted"):
        step.require_painted(latents(2))


def test_pictures_at_several_times_are_refused_with_what_may_have_shown_them() -> None:
    """Of an inversion by another scheduler ahead of the picture, a reference picture alone was spoken of."""
    step = GivenLatents()
    step.add(latents(0), BOTH)
    step.at_another_time()
    step.begin()
    step.add(latents(1), BOTH)
    with pytest.raises(UnsupportedModel, match=r"at several times with the same text.*inversion.*invert outside the trace"):
        step.require_painted(latents(1))


def test_a_model_that_broke_is_not_blamed_on_a_reference_picture() -> None:
    """What is no number equals nothing, so it was taken for several pictures."""
    step = GivenLatents()
    step.add(torch.full((2, 4, 6, 8), torch.nan), BOTH)
    step.add(torch.full((2, 4, 6, 8), torch.nan), BOTH)
    step.require_painted(torch.full((2, 4, 6, 8), torch.nan))
