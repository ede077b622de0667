"""A choice made on the page: the mask that follows is composed from the equation here, step by step; bad ones are refused."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daam_core import HeatMaps
from daam_core.errors import BadArgument, DetailMissing, WordNotFound
from daam_core.explorer.selection import choice_mask, missing, picked, read_choice, united

from ...web.samples import heat_maps

WORDS = ["a", "red", "house", "and", "a", "green", "tree"]


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    negative = heat_maps(["snow"], (96, 128), ((12, 16), (6, 8)), seed=3)
    return heat_maps(WORDS, (96, 128), ((12, 16), (6, 8)), detail=True).with_negative(negative)


def chosen(*picks: list[str], part: Any = None, **settings: Any) -> str:
    return json.dumps({"words": [list(pick) for pick in picks], "settings": settings, "part": part})


def heat(maps: HeatMaps, *numbers: int) -> Tensor:
    """Eq. 6 of some words by their place in the prompt: native sums of their rows, each resolution upscaled, added."""
    total = torch.zeros(maps.size)
    for rows in maps.sums.values():
        one = sum(rows[number + 1] for number in numbers)
        assert isinstance(one, Tensor)
        total += F.interpolate(one[None, None], maps.size, mode="bicubic", align_corners=False)[0, 0]
    return total


def made(maps: HeatMaps, text: str) -> Tensor:
    return choice_mask(maps, read_choice(text))


def test_several_words_are_a_union_of_levels(maps: HeatMaps) -> None:
    wanted = torch.zeros(maps.size, dtype=torch.bool)
    for one in (heat(maps, 2), heat(maps, 5, 6)):
        wanted |= one >= 0.55 * one.max()
    found = made(maps, chosen(["word:house"], ["word:green", "word:tree"], tau=0.55))
    assert float((found != wanted).float().mean()) < 2e-4
    inverse = made(maps, chosen(["word:house"], ["word:green", "word:tree"], tau=0.55, invert=True))
    assert torch.equal(inverse, ~found)


def test_the_second_of_two_equal_words_is_meant(maps: HeatMaps) -> None:
    """Also inside a phrase, where a search for its text would find the first."""
    first, second = heat(maps, 0), heat(maps, 4)
    assert not torch.equal(first >= 0.4 * first.max(), second >= 0.4 * second.max())
    assert torch.equal(made(maps, chosen(["word:a#2"])), second >= 0.4 * second.max())
    both = heat(maps, 4, 5)
    assert float((made(maps, chosen(["word:a#2", "word:green"])) != (both >= 0.4 * both.max())).float().mean()) < 2e-4


def test_soft_compete_grow_and_feather(maps: HeatMaps) -> None:
    scaled = [(x - x.min()) / (x.max() - x.min()) for x in (heat(maps, 2), heat(maps, 6))]
    ramp = ((scaled[0] - 0.4) / 0.3 + 0.5).clamp(0, 1)
    assert torch.allclose(made(maps, chosen(["word:house"], soft=True)), ramp, atol=2e-3)
    own = heat(maps, 2)
    won = (scaled[0] >= scaled[1]) & (own >= 0.4 * own.max())
    assert float((made(maps, chosen(["word:house"], compete=True)) != won).float().mean()) < 2e-3
    hard = made(maps, chosen(["word:house"], tau=0.6))
    distance = cv2.distanceTransform((~hard).numpy().astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert torch.equal(made(maps, chosen(["word:house"], tau=0.6, grow=4)), torch.from_numpy(distance <= 4))
    edge = made(maps, chosen(["word:house"], tau=0.6, feather=5))
    assert edge.is_floating_point()
    assert torch.equal(edge > 0.5, hard)


def test_steps_are_the_equation_over_these_steps(maps: HeatMaps) -> None:
    assert maps.detail is not None
    total = torch.zeros(maps.size)
    for values in maps.detail.values.values():
        one = values[2, :, 2].float().sum(0)
        total += F.interpolate(one[None, None], maps.size, mode="bicubic", align_corners=False)[0, 0]
    found = made(maps, chosen(["word:house"], part={"axis": "steps", "frames": [2]}))
    assert float((found != (total >= 0.4 * total.max())).float().mean()) < 2e-3
    # Words that cannot be seen, and the negative prompt's, have no steps on the page: there it is the whole.
    for pick in (["word:and"], ["negative:snow"], ["special:<start>"]):
        assert torch.equal(made(maps, chosen(pick, part={"axis": "steps", "frames": [2]})), made(maps, chosen(pick)))


def test_a_method_of_the_core_is_itself(maps: HeatMaps) -> None:
    assert torch.equal(made(maps, chosen(["word:tree"], method="best", soft=True)), maps.mask("tree", "best"))
    base = united(maps, read_choice(chosen(["word:tree"], method="otsu", grow=3, invert=True)))
    assert torch.equal(base, maps.mask("tree", "otsu"))


def test_words_that_are_not_there_are_left_out(maps: HeatMaps) -> None:
    text = chosen(["word:dragon"], ["word:house"], ["negative:fog"])
    assert missing(maps, read_choice(text)) == ["word:dragon", "negative:fog"]
    assert torch.equal(made(maps, text), made(maps, chosen(["word:house"])))
    for nothing in (chosen(["word:dragon"], invert=True), chosen(invert=True), "", "  "):
        assert not made(maps, nothing).any()


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "null", "3", '{"words": 1}', '{"words": [1]}', '{"words": [[]]}', '{"words": [[1]]}', "[" * 100_000,
        '{"words": [], "settings": 1}', '{"words": [], "settings": {"tau": 2}}', '{"words": [], "settings": {"tau": "x"}}',
        '{"words": [], "settings": {"grow": NaN}}', '{"words": [], "settings": {"method": "magic"}}',
        '{"words": [], "settings": {"feather": true}}', '{"words": [], "part": {"axis": "heads", "frames": [1]}}',
        '{"words": [], "part": {"axis": "steps", "frames": [-1]}}', '{"words": [], "settings": {"method": ["best"]}}',
        '{"words": [], "settings": {"method": {}}}', '{"words": [], "settings": {"method": []}}',
        '{"words": [], "settings": {"method": 0}}', '{"words": [], "settings": {"method": false}}',
        '{"words": [], "settings": {"soft": "false"}}', '{"words": [], "settings": {"invert": {}}}',
        '{"words": [], "settings": {"compete": null}}',
    ],
)  # fmt: skip
def test_what_no_page_tells_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="Choose again on the page"):
        read_choice(text)


def test_steps_that_are_not_there_are_said(maps: HeatMaps) -> None:
    with pytest.raises(BadArgument, match="no step 9"):
        made(maps, chosen(["word:house"], part={"axis": "steps", "frames": [9]}))
    plain = heat_maps(WORDS, (64, 64), ((8, 8),))
    with pytest.raises(DetailMissing):
        made(plain, chosen(["word:house"], part={"axis": "layers", "frames": [0]}))


def test_a_pick_is_a_word_of_its_side(maps: HeatMaps) -> None:
    side, phrase = picked(maps, ["word:green", "word:tree"])
    assert side is maps and phrase.channels == (6, 7) and phrase.label == "green tree"
    assert picked(maps, ["word:a#2"])[1].channels == (5,)
    side, snow = picked(maps, ["negative:snow"])
    assert torch.equal(side.heat_map(snow, maps.size), maps.negative.heat_map("snow", maps.size))
    assert side.picture is maps.picture
    for wrong in ([], ["house"], ["word:snow"], ["word:house", "negative:snow"], ["word:zebra"]):
        with pytest.raises(WordNotFound):
            picked(maps, wrong)
    with pytest.raises(WordNotFound, match="not in the recording"):
        picked(heat_maps(WORDS, (96, 128), ((12, 16),)), ["negative:snow"])
