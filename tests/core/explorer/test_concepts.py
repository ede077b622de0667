"""Concepts on the explorer's page: shown with what they are, and chosen like words."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from daam_core import HeatMaps
from daam_core.explorer.page_data import page_data
from daam_core.explorer.selection import choice_mask, missing, read_choice
from daam_core.prompt.concepts import concept_prompt, concepts_of

from ...web.samples import heat_maps


@pytest.fixture(scope="module")
def maps() -> HeatMaps:
    words = heat_maps(["a", "red", "house"], (96, 128), ((12, 16), (6, 8)))
    generator = torch.Generator().manual_seed(4)
    sums = {grid: torch.rand(5, *grid, generator=generator) for grid in words.sums}
    side = dataclasses.replace(
        words.positive, sums=sums, time_weighted=sums, detail=None, heads=None, self_attention=None,
        prompt=concept_prompt(concepts_of("sky, a dog's tail")), presence=(0.81, 0.02),
    )  # fmt: skip
    attention = {(6, 8): torch.softmax(4 * torch.eye(48), -1)}
    positive = dataclasses.replace(words.positive, self_attention=attention)
    picture = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    return dataclasses.replace(words, sides={"prompt": positive, "concepts": side}, picture=picture)


def choice(*names: str, **settings: object) -> str:
    return json.dumps({"words": [list(names)], "settings": settings, "part": None})


def test_the_page_names_a_concept_with_its_score(maps: HeatMaps) -> None:
    header = page_data(maps).header
    entries = [word for word in header["words"] if word["kind"] == "concept"]
    assert [word["label"] for word in entries] == ["sky", "a dog's tail"]
    assert entries[0]["text"] == "sky: likely 0.81, not in the prompt"
    assert entries[1]["text"] == "a dog's tail: unlikely 0.02, not in the prompt"
    assert any("whether it is there or not" in note for note in header["notes"])
    peak = float(maps.heat_map("sky", maps.size).max())
    assert entries[0]["peak"] == pytest.approx(peak, rel=1e-5)
    plain = page_data(maps.without_concepts()).header
    assert all(word["kind"] != "concept" for word in plain["words"])


@pytest.mark.parametrize("method", ["", "best", "walk", "late"])
def test_a_concept_is_chosen_like_a_word(maps: HeatMaps, method: str) -> None:
    found = choice_mask(maps, read_choice(choice("concept:sky", tau=0.6, method=method)))
    if method:
        wanted = maps.mask("sky", method, tau=0.6)
    else:
        heat = maps.heat_map("sky", maps.size)
        wanted = heat >= 0.6 * heat.max()
    assert torch.equal(found.bool(), wanted)


def test_what_is_no_concept_is_missing(maps: HeatMaps) -> None:
    assert missing(maps, read_choice(choice("concept:house"))) == ["concept:house"]
    for names in (["concept:house"], ["concept:sky", "concept:a dog's tail"], ["concept:sky", "word:house"]):
        assert not choice_mask(maps, read_choice(choice(*names))).any(), names
