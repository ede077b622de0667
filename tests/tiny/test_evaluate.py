"""The figures of the model card: prompts that are fixed, verdicts that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from daam_core.errors import BadArgument
from daam_core.tiny import load_segmenter, load_tiny
from daam_core.tiny.captions import HELD_OUT
from daam_core.tiny.evaluate import SPLITS, Prompt, evaluate, prompts, repeats, verdict
from daam_core.tiny.scenes import scene_at
from daam_core.tiny.segmenter import Found

ASKED = Prompt("a red house and a green tree", (("red", "house"), ("green", "tree")), "and", "plain")


def seen(*pairs: tuple[str, str]) -> dict[str, Found]:
    return {noun: Found(noun, colour, torch.ones(2, 2, dtype=torch.bool)) for colour, noun in pairs}


@pytest.mark.parametrize("split", SPLITS)
def test_prompts_are_fixed_and_of_their_split(split: str) -> None:
    objects, held_out = SPLITS[split]
    first = prompts(split, 30)
    assert first == prompts(split, 60)[:30]
    for prompt in first:
        assert len(prompt.pairs) == objects
        assert (prompt.pairs[0] in HELD_OUT) == held_out
        assert all(f"{colour} {noun}" in prompt.text for colour, noun in prompt.pairs)


@pytest.mark.parametrize(
    ("pairs", "right", "clean"),
    [
        ([("red", "house"), ("green", "tree")], True, True),
        ([("red", "house"), ("green", "tree"), ("blue", "fish")], True, False),
        ([("green", "house"), ("red", "tree")], False, False),
        ([("red", "house")], False, False),
        ([], False, False),
    ],
)
def test_a_picture_is_right_when_all_is_there_in_its_colour(pairs: list[tuple[str, str]], right: bool, clean: bool) -> None:
    assert verdict(ASKED, seen(*pairs)) == (right, clean)


def quick_pipe() -> Any:
    """The model inside with two steps a picture: what it draws is not what these tests are about."""
    pipe = load_tiny()
    pipe.own_defaults = {**pipe.own_defaults, "num_inference_steps": 2}
    return pipe


def test_an_evaluation_writes_figures_and_sheets(tmp_path: Path) -> None:
    lines: list[str] = []
    result = evaluate(quick_pipe(), load_segmenter(), tmp_path, lines.append, count=2, scenes=8)
    assert json.loads((tmp_path / "evaluation.json").read_text())["decibels"] == result.decibels
    assert {p.name for p in tmp_path.glob("*.png")} == {f"{s.replace(' ', '-')}.png" for s in SPLITS}
    assert len(lines) == len(SPLITS) + len(result.lines())
    assert result.decibels > 30


def test_no_picture_and_no_split_are_refused() -> None:
    with pytest.raises(BadArgument, match="got 0"):
        evaluate(load_tiny(), load_segmenter(), None, print, count=0)
    with pytest.raises(BadArgument, match="no split 'three'"):
        prompts("three", 1)


def test_pictures_of_256_pixels_are_judged() -> None:
    lines: list[str] = []
    result = evaluate(quick_pipe(), load_segmenter(), None, lines.append, count=1, scenes=8, side=256)
    assert result.side == 256 and "1 pictures of 256 px" in result.lines()[0]
    with pytest.raises(BadArgument, match="128 or 256 pixels, not 200"):
        evaluate(load_tiny(), load_segmenter(), None, print, count=1, side=200)


def test_an_object_in_two_places_is_a_repeated_one() -> None:
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[10:40, 10:40] = True
    once = {"house": Found("house", "red", mask.clone())}
    mask[80:82, 80:82] = True  # a speck is none
    specked = {"house": Found("house", "red", mask.clone())}
    mask[80:110, 80:110] = True
    assert [repeats(found) for found in (once, specked, {"house": Found("house", "red", mask)}, {})] == [
        False,
        False,
        True,
        False,
    ]


def test_drawn_scenes_repeat_nothing() -> None:
    pictures = [Image.fromarray(scene_at(77, k, two=0.5, side=256).image).reduce(2) for k in range(40)]
    assert not any(repeats(found) for found in load_segmenter().find(pictures))
