"""Words told after the recording: the maps are those of a recording that knew them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from daam_core import trace
from daam_core.errors import BadArgument
from daam_core.maps.heatmaps import HeatMaps
from daam_core.maps.relabel import by_index
from daam_core.prompt.prompt import Prompt

from ..models import PROMPT, paint, pipeline, tokenizer


def recorded(pipe: Any, by_hand: bool, **more: Any) -> HeatMaps:
    options: dict[str, Any] = {"prompt": PROMPT}
    if by_hand:
        embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True)
        options = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": negative}
    with trace(pipe, keep=("layers", "steps", "heads"), **more) as recording:
        paint(pipe, **options)
    return recording.heat_maps()


def test_equals_a_recording_that_knew_the_words() -> None:
    """Embeddings given by hand, text given later: every part of the maps is the same."""
    pipe = pipeline("sd15")
    known, blind = recorded(pipe, False), recorded(pipe, True)
    assert by_index(blind.prompt)
    assert not by_index(known.prompt)
    ids = tokenizer()(PROMPT, padding="max_length", max_length=77).input_ids
    told = blind.with_prompt(Prompt.from_ids(ids, tokenizer(), text=PROMPT))
    assert told.words == known.words
    for grid, sums in known.sums.items():
        torch.testing.assert_close(told.sums[grid], sums, rtol=1e-5, atol=1e-6)
    for choice in ({"layers": ["up"]}, {"steps": [1]}, {"heads": [0]}):
        chosen = [maps.select(**choice).heat_map("house") for maps in (known, told)]  # type: ignore[arg-type]
        torch.testing.assert_close(chosen[1], chosen[0], rtol=2e-3, atol=1e-5)


def test_words_fit_or_are_refused() -> None:
    """Another text length is another text."""
    blind = recorded(pipeline("sd15"), True)
    ids = tokenizer()(PROMPT, padding="max_length", max_length=30).input_ids
    with pytest.raises(BadArgument, match="77 columns and this prompt has 30"):
        blind.with_prompt(Prompt.from_ids(ids, tokenizer()))
    with pytest.raises(BadArgument, match="words already"):
        recorded(pipeline("sd15"), False).with_prompt(blind.prompt)


def test_concepts_keep_their_own_words() -> None:
    pipe = pipeline("sd15")
    sun = recorded(pipe, False, concepts=["sun"]).sides["concepts"]
    blind = recorded(pipe, True)
    blind = dataclasses.replace(blind, sides={**blind.sides, "concepts": sun})
    ids = tokenizer()(PROMPT, padding="max_length", max_length=77).input_ids
    told = blind.with_prompt(Prompt.from_ids(ids, tokenizer(), text=PROMPT))
    assert told.concepts == ["sun"] and "house" in told.words
    assert torch.equal(told["sun"], blind["sun"])
