"""`trace(pipe)` on pipelines that are made of blocks."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from daam_core import trace

from ..capture.attention_witness import Witness
from . import detour_pipelines as detour
from .pipeline_cases import CASES, NEGATIVES, PROMPTS, at, chat
from .test_transformer_tasks import autoencoder

HEIGHT, WIDTH, PATCHES = 64, 96, 24
WINDOW = 80  # columns of text that Flux.3 pads a prompt to


def paint(pipe: Any, output: Any = "latents", **more: Any) -> Any:
    options: dict[str, Any] = {
        "num_inference_steps": 2, "height": HEIGHT, "width": WIDTH, "generator": torch.Generator().manual_seed(1),
        "text_encoder_out_layers": (0, 1, 2), "negative_prompt": "blurry and dark", "output_type": "pil",
    }  # fmt: skip
    return pipe(prompt="a red house", output=output, **{**options, **more})


def test_the_picture_is_untouched_and_its_words_are_right() -> None:
    pipe = detour.flux3()
    before = paint(pipe)
    with trace(pipe, negative=True) as recording:
        during = paint(pipe)
    assert recording.failure is None and torch.equal(during, before) and torch.equal(paint(pipe), before)
    (maps,) = recording
    assert maps.words == ["a", "red", "house"] and maps.negative.words == ["blurry", "and", "dark"]
    assert (maps.steps, maps.grid, maps.negative.steps) == (2, (4, 6), 2)


def test_the_maps_are_those_of_the_equation() -> None:
    pipe = detour.flux3()
    with trace(pipe) as recording:
        paint(pipe)
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe)
    handle.remove()
    keys = at(pipe.tokenizer.tokenizer, chat(pipe, "a red house"), "a red house", "house")
    total = torch.zeros(PATCHES, dtype=torch.float64)
    for step in (0, 2):  # the prompt's call, then the negative's
        for index in range(forwards[step], forwards[step + 1]):
            if witness.calls[index][1].shape[-2] == WINDOW + PATCHES:
                total += witness.probabilities(index)[0].sum(0)[WINDOW:, keys].sum(-1)
    (maps,) = recording
    error = (maps.heat_map("house").double() - total.unflatten(0, (4, 6))).abs().max() / maps.num_terms[4, 6]
    assert error < 1e-5


def test_whatever_a_pipeline_gives_out_has_its_size_and_picture() -> None:
    """Its whole state, some of it by name, or its pictures alone; several of one prompt."""
    pipe = detour.flux3()
    for output in (None, ["images"], "images"):
        with trace(pipe) as recording:
            paint(pipe, output, num_images_per_prompt=2)
        assert [(maps.words[-1], maps.size) for maps in recording] == [("house", (HEIGHT, WIDTH))] * 2
        assert all(maps.picture is not None and maps.picture.shape == (HEIGHT, WIDTH, 3) for maps in recording)


def test_a_state_that_is_handed_on_keeps_its_prompt() -> None:
    pipe = detour.flux3()
    state = paint(pipe, None)
    before: Tensor = pipe(state=state, output="latents")
    with trace(pipe) as recording:
        during: Tensor = pipe(state=state, output="latents")
    assert torch.equal(during, before)
    assert recording.heat_maps().words == ["a", "red", "house"]


def of_blocks(kind: str, name: str, vae: Any) -> Any:
    """A modular pipeline of the parts of an ordinary one."""
    pipe = getattr(diffusers, kind)()
    parts = {**CASES[name].make().components, "vae": vae}
    wanted = {spec.name for spec in pipe._blocks.expected_components}
    pipe.update_components(**{key: part for key, part in parts.items() if key in wanted and part is not None})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def qwen_autoencoder() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "vae", "size"),
    [
        ("FluxModularPipeline", "flux", autoencoder, (64, 96)),
        ("ZImageModularPipeline", "z-image", autoencoder, (64, 96)),
        ("StableDiffusion3ModularPipeline", "sd3", autoencoder, (64, 96)),
        ("QwenImageModularPipeline", "qwen", qwen_autoencoder, (32, 48)),
    ],
)
def test_blocks_of_other_families(kind: str, name: str, vae: Any, size: tuple[int, int]) -> None:
    """Two prompts of different length; some blocks write their templates into the list of prompts."""
    pipe = of_blocks(kind, name, vae())

    def run() -> Any:
        options = {"height": size[0], "width": size[1], "num_inference_steps": 2, "generator": torch.Generator().manual_seed(1)}
        return pipe(prompt=list(PROMPTS), negative_prompt=list(NEGATIVES), output="latents", **options)

    before = run()
    with trace(pipe) as recording:
        during = run()
    assert torch.equal(during, before) and recording.failure is None
    assert [maps.words for maps in recording] == [PROMPTS[0].replace("a green", "a#2 green").split(), PROMPTS[1].split()]
    assert all(maps.size == size and maps.grid == (4, 6) and maps.steps == 2 for maps in recording)
