"""What any model recorded comes back out of a file: the schema of a record refuses nothing that a recording can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from daam_core import HeatMaps, trace

from .. import models as unets
from ..diffusers.pipeline_cases import CASES, paint

KEPT = [(), ("layers",), ("steps",), ("layers", "steps")]


def same(maps: HeatMaps, path: Path) -> None:
    """Save, load and compare both sides, and what can be chosen of them."""
    back = HeatMaps.load(maps.save(path / "run"))
    for before, after in ((maps, back), (maps.negative, back.negative)):
        if before is None:
            assert after is None
            continue
        assert after is not None and after.prompt == before.prompt and after.layers == before.layers
        assert after.num_terms == before.num_terms and after.timesteps == before.timesteps and after.steps == before.steps
        assert torch.equal(after.heat_maps(), before.heat_maps()) and after.nbytes == before.nbytes
        if before.detail is not None and before.detail.by_step and before.words:
            assert torch.equal(after.steps_of(before.words[0]), before.steps_of(before.words[0]))


@pytest.mark.parametrize("keep", KEPT, ids=" ".join)
@pytest.mark.parametrize("name", CASES)
def test_transformers(name: str, keep: Sequence[Any], tmp_path: Path) -> None:
    pipe = CASES[name].make()
    with trace(pipe, keep=keep, negative=True) as recording:
        paint(pipe, CASES[name])
    for maps in recording:
        same(maps, tmp_path)


@pytest.mark.parametrize("keep", [*KEPT, ("layers", "steps", "heads")], ids=" ".join)
@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_unets(kind: str, keep: Sequence[Any], tmp_path: Path) -> None:
    pipe = unets.pipeline(kind)
    with trace(pipe, keep=keep, negative=True) as recording:
        unets.paint(pipe, ["a red house", "a zebra"], height=72, width=104)
    for maps in recording:
        same(maps, tmp_path)
        same(maps.select(grids=[maps.grid]), tmp_path)
        if "heads" in keep:
            same(maps.select(heads=[0]), tmp_path)
            same(maps.aggregate("castorini"), tmp_path)


def test_a_prompt_that_was_exchanged_on_the_way(tmp_path: Path) -> None:
    """Words that come in late have fewer steps than the recording."""
    pipe = CASES["sd3"].make()

    def exchange(pipe: Any, step: int, time: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if step == 0:
            embeds, negative, *_ = pipe.encode_prompt("two cats", None, None, max_sequence_length=20)
            tensors["prompt_embeds"] = torch.cat([negative, embeds])
        return tensors

    with trace(pipe, keep=("layers", "steps"), negative=True) as recording:
        paint(
            pipe, CASES["sd3"], ["a red house"], [""], num_inference_steps=3, callback_on_step_end=exchange,
            callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        )  # fmt: skip
    for maps in recording:
        same(maps, tmp_path)
