"""`trace(pipe)` on pipelines that are made of blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daam_core import trace

from ..capture.attention_witness import Witness
from . import detour_pipelines as detour
from .pipeline_cases import at, chat

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
