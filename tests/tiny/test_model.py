"""The weights that ship: small enough, and what is asked for is what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from daam_core.errors import UnsupportedModel
from daam_core.tiny import load, load_segmenter, load_tiny
from daam_core.tiny.load import WEIGHTS

PROMPTS = {
    "a red house": {("red", "house")},
    "a blue fish": {("blue", "fish")},
    "a yellow star at night": {("yellow", "star")},
    "a purple moon on grass": {("purple", "moon")},
    "a red balloon in snow": {("red", "balloon")},
    "an orange tree": {("orange", "tree")},
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_tiny()


def test_pictures_show_what_was_asked_for(pipe: Any) -> None:
    generators = [torch.Generator().manual_seed(7) for _ in PROMPTS]
    pictures = pipe(list(PROMPTS), generator=generators).images
    assert all(p.size == (128, 128) for p in pictures)
    for asked, seen in zip(PROMPTS.values(), load_segmenter().find(pictures), strict=True):
        assert asked <= {(one.colour, one.noun) for one in seen.values()}


def test_defaults_are_the_models_own_and_can_be_changed(pipe: Any) -> None:
    def draw(*args: Any, **kwargs: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.from_numpy(pipe(*args, generator=generator, output_type="np", **kwargs).images)

    usual = draw("a red house")
    assert torch.equal(usual, draw("a red house", num_inference_steps=25, guidance_scale=4.5))
    assert not torch.equal(usual, draw("a red house", guidance_scale=1.0))
    assert draw("a red house", 64, 192, num_inference_steps=2).shape == (1, 64, 192, 3)


def test_a_pipeline_is_float32_unless_told_otherwise(pipe: Any) -> None:
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert load_tiny(torch.float16).unet.dtype == load_tiny(dtype=torch.float16).unet.dtype == torch.float16


def test_latents_need_no_scale(pipe: Any) -> None:
    assert pipe.vae.config.scaling_factor == 1.0


def test_weights_are_small_half_precision_and_free_of_pickle() -> None:
    """20 MB each: the UNet with all that goes with it, and the transformer with its text encoder."""
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    joint = [p for p in files if p.is_relative_to(WEIGHTS / "transformer")]
    assert sum(p.stat().st_size for p in joint) <= 20e6
    assert sum(p.stat().st_size for p in files if p not in joint) <= 20e6
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".txt"}
    for path in files:
        if path.suffix == ".json":
            assert "_name_or_path" not in path.read_text(encoding="utf-8")


def test_missing_weights_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="No model lies in"):
        load_tiny(weights=tmp_path)
    with pytest.raises(UnsupportedModel, match="No segmenter lies at"):
        load_segmenter(weights=tmp_path)


def test_two_objects_keep_their_colours(pipe: Any) -> None:
    asked = {("red", "house"), ("green", "tree")}
    pictures = pipe(["a red house and a green tree"] * 4, generator=[torch.Generator().manual_seed(k) for k in range(4)]).images
    right = [asked <= {(one.colour, one.noun) for one in seen.values()} for seen in load_segmenter().find(pictures)]
    assert sum(right) >= 3


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_the_text_encoder_is_loaded_under_both_names_of_its_weights(prefix: str, tmp_path: Path) -> None:
    """transformers 4 has a prefix that 5 has not; where names did not fit, random numbers stood there and nobody said so."""
    from torch import nn

    path = tmp_path / "model.safetensors"
    inner = nn.Linear(2, 2)
    module: nn.Module = inner
    for name in reversed(prefix.split(".")[:-1]):
        module = nn.ModuleDict({name: module})
    save_file({"weight": torch.ones(2, 2), "bias": torch.full((2,), 3.0)}, str(path))
    load._load_text_encoder(module, path)
    assert bool((inner.weight == 1).all()) and bool((inner.bias == 3).all())
    save_file({"weight": torch.ones(2, 2)}, str(path))
    with pytest.raises(UnsupportedModel, match=f"no {prefix}bias"):
        load._load_text_encoder(module, path)
