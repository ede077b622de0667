"""The examples of the docstrings are run, and every public name has one."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch

import daam_core
from daam_core import HeatMaps
from daam_core.maps.data import PromptSide
from daam_core.maps.picture_statistics import Statistics
from daam_core.prompt.concepts import concept_prompt, concepts_of

RECORD = Path(__file__).parent / "maps" / "data" / "record-0.1.0.safetensors"
MODULES = [
    "daam_core",
    "daam_core.diffusers.reading",
    "daam_core.picture_input",
    "daam_core.attention.concepts",
    "daam_core.diffusers.presence",
    "daam_core.diffusers.trace",
    "daam_core.maps.aggregation",
    "daam_core.maps.comparison",
    "daam_core.maps.heatmaps",
    "daam_core.maps.mask_verbs",
    "daam_core.maps.picture_statistics",
    "daam_core.maps.queries",
    "daam_core.maps.relation_verbs",
    "daam_core.maps.verbs",
    "daam_core.masks.metrics",
    "daam_core.prompt.concepts",
    "daam_core.prompt.context",
    "daam_core.prompt.prompt",
    "daam_core.prompt.words",
    "daam_core.render.colormaps",
    "daam_core.tiny.load",
]
WITHOUT = {"nbytes", "each_side", "with_negative", "weighted_by_time", "words", "content_words", "grid", "mask_inputs"}
"""Said in a line, without arguments that need showing."""


def with_concept(maps: HeatMaps) -> HeatMaps:
    """Maps as if the sun had been looked for, which is not in the picture; the record of 0.1.0 has no concepts."""
    sums = {grid: torch.ones(4, *grid) for grid in maps.sums}
    side = dataclasses.replace(
        maps.positive, sums=sums, time_weighted=sums, detail=None, heads=None, self_attention=None,
        prompt=concept_prompt(concepts_of("sun")), presence=(0.05,),
    )  # fmt: skip
    return dataclasses.replace(maps, sides={**maps.sides, "concepts": side})


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"maps": with_concept(HeatMaps.load(RECORD)), "np": np, "torch": torch}
    done = doctest.testmod(import_module(name), extraglobs=known, optionflags=doctest.ELLIPSIS, verbose=False)
    assert done.attempted
    assert not done.failed


@pytest.mark.parametrize("of", [HeatMaps, Statistics])
def test_every_verb_says_what_it_gives_and_shows_it(of: type) -> None:
    verbs: dict[str, Any] = {
        name: value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        for part in of.__mro__[:-1]
        for name, value in vars(part).items()
        if part is not PromptSide and not name.startswith("_") and (isinstance(value, (FunctionType, property, classmethod)))
    }
    assert verbs
    for name, verb in verbs.items():
        text = inspect.getdoc(verb) or ""
        assert text, name
        assert name in WITHOUT or "Example:" in text, name


def test_all_public_names_are_there() -> None:
    """What `__all__` promises can be imported, and names that were asked for wrongly are said."""
    for name in daam_core.__all__:
        assert getattr(daam_core, name) is not None
    assert {"sum", "castorini"} <= set(daam_core.AGGREGATIONS)
    assert {"best", "threshold"} <= set(daam_core.MASK_METHODS)
    with pytest.raises(AttributeError, match="no attribute 'Lens'"):
        daam_core.Lens  # noqa: B018
