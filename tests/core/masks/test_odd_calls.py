"""Whatever the public mask functions are given: a result of the right kind or one sentence, never the errors of libraries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daam_core import masks
from daam_core.errors import BadArgument
from daam_core.masks import metrics

SIDES = st.integers(0, 4)
NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [0, 1, 2, -1, 0.4, 1e9, -1e9, 10**400, math.nan, math.inf, -math.inf, True, None, "3", 0.5, np.float32(0.3)]
    ),
    st.floats(-2, 3),
    st.integers(-3, 5),
)
KINDS = [torch.float32, torch.float64, torch.float16, torch.bool, torch.int64, torch.uint8, torch.complex64]


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(SIDES, min_size=0, max_size=4))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))) * 3
    kind = draw(st.sampled_from(KINDS))
    made = values > 1 if kind == torch.bool else values.to(kind)
    if made.is_floating_point() and made.numel() and draw(st.integers(0, 6)) == 0:
        made.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf]))
    return draw(st.sampled_from([made, made, made, made, made, made, None, [[1.0]]]))


@st.composite
def pictures(draw: st.DrawFn) -> Any:
    shape = draw(st.sampled_from([(5, 7, 3), (1, 1, 3), (4, 4, 4), (4, 4), (0, 3, 3), (3, 9, 3)]))
    kind = draw(st.sampled_from([np.uint8, np.uint8, np.uint8, np.float32]))
    made = np.random.default_rng(0).integers(0, 256, shape).astype(kind)
    return draw(st.sampled_from([made, made, made, None, "picture"]))


SIZES: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.integers(-1, 9), st.integers(-1, 9)),
    st.sampled_from([None, 5, (3,), (2.5, 4), (2**20, 2**20), "ab", (True, 4)]),
)
CALLS: dict[str, tuple[Callable[..., Any], tuple[st.SearchStrategy[Any], ...]]] = {
    "minmax": (masks.minmax, (tensors(),)),
    "stretched": (masks.stretched, (tensors(),)),
    "threshold": (masks.threshold, (tensors(), NUMBERS)),
    "otsu": (masks.otsu, (tensors(), NUMBERS)),
    "winners": (masks.winners, (tensors(), NUMBERS)),
    "compete": (masks.compete, (tensors(), NUMBERS)),
    "compete_with_rivals": (masks.compete_with_rivals, (tensors(), NUMBERS)),
    "soft": (masks.soft, (tensors(), NUMBERS, NUMBERS)),
    "rivals": (masks.rivals, (tensors(), NUMBERS)),
    "resized": (masks.resized, (tensors(), SIZES)),
    "walk": (masks.walk, (tensors(), tensors(), NUMBERS, NUMBERS)),
    "snap_guided": (masks.snap_guided, (tensors(), pictures(), NUMBERS, NUMBERS)),
    "snap_grabcut": (masks.snap_grabcut, (tensors(), pictures(), NUMBERS, NUMBERS, NUMBERS, NUMBERS)),
    "best": (
        lambda maps, index, picture, attention, size: masks.best(
            maps, index, picture=picture, self_attention=attention, size=size
        ),
        (tensors(), NUMBERS, pictures(), tensors(), SIZES),
    ),
    "grow": (masks.grow, (tensors(), NUMBERS)),
    "shrink": (masks.shrink, (tensors(), NUMBERS)),
    "feather": (masks.feather, (tensors(), NUMBERS)),
    "fill_holes": (masks.fill_holes, (tensors(), NUMBERS)),
    "drop_small": (masks.drop_small, (tensors(), NUMBERS)),
    "invert": (masks.invert, (tensors(),)),
    "Cleanup": (
        lambda mask, fill, *rest: masks.Cleanup(fill, *rest).apply(mask),
        (tensors(), NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    ),
    "per_cent": (masks.per_cent, (NUMBERS, SIZES)),
    **{name: (getattr(metrics, name), (tensors(), tensors())) for name in ("iou", "dice", "iod", "ioh", "pixel_accuracy")},
}


@pytest.mark.parametrize("name", CALLS)
def test_odd_calls_give_a_result_or_a_sentence(name: str) -> None:
    call, strategies = CALLS[name]

    @settings(max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*strategies))
    def tried(arguments: tuple[Any, ...]) -> None:
        said = "A result."
        try:
            call(*arguments)
        except BadArgument as error:
            said = str(error)
        assert said.endswith(".") and "\n" not in said

    tried()


def test_every_public_function_is_tried() -> None:
    functions = {name for name in masks.__all__ if callable(getattr(masks, name)) and name != "Settings"}
    assert functions <= set(CALLS)


def test_a_huge_radius_sees_the_whole_picture_and_does_not_hang() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    heat = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    start = time.process_time()
    done = masks.snap_guided(heat, picture, radius=1e9)
    assert time.process_time() - start < 5
    assert torch.equal(done, masks.snap_guided(heat, picture, radius=1e6))
    assert done.shape == (40, 60)
