"""Pipelines whose transformer is given the tokens of the prompt: OmniGen and Cosmos 3."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from daam_core import trace

from ..capture.attention_witness import Witness
from . import token_pipelines as made
from .transformer_pipelines import PROMPTS

HEIGHT, WIDTH, PATCHES = 64, 96, 24
EDIT = "a red house and <img><|image_1|></img> a green tree"
"""The same words, with a reference between them."""


@pytest.fixture(autouse=True)
def _processor(monkeypatch: pytest.MonkeyPatch) -> None:
    made.with_processor(monkeypatch)


def omnigen(pipe: Any, prompts: Any = PROMPTS, **more: Any) -> Tensor:
    options: dict[str, Any] = {"num_inference_steps": 2, "height": HEIGHT, "width": WIDTH, "output_type": "latent", **more}
    prompts = list(prompts) if isinstance(prompts, list) else prompts
    torch.manual_seed(2)  # its references are drawn from what the autoencoder gives, without a generator
    return torch.as_tensor(pipe(prompts, generator=torch.Generator().manual_seed(1), **options).images)


def cosmos(pipe: Any, **more: Any) -> Any:
    options: dict[str, Any] = {
        "prompt": PROMPTS[0], "negative_prompt": "blurry and dark", "num_inference_steps": 2, "height": HEIGHT, "width": WIDTH,
        "num_frames": 5, "output_type": "latent", "guidance_scale": 3.0, "use_system_prompt": True, **more,
    }  # fmt: skip
    return pipe(generator=torch.Generator().manual_seed(1), **options).video


def keys_of(tokenizer: Any, whole: str, prompt: str, word: str) -> list[int]:
    """Tokens of a word of the prompt inside a templated text, by the tokenizer's own offsets."""
    begin = whole.rindex(prompt) + prompt.index(word)
    offsets = tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
    touched = [i for i, (a, b) in enumerate(offsets) if a < begin + len(word) and b > begin]
    return [i for i in touched if whole[offsets[i][0] : offsets[i][1]].strip()]


def test_omnigen_is_bit_identical_and_its_words_and_sums_are_right() -> None:
    """Two prompts of different length: the shorter is padded on the left, the mask is causal."""
    pipe = made.omnigen()
    before = omnigen(pipe)
    with trace(pipe, negative=True) as recording:
        during = omnigen(pipe)
    assert recording.failure is None
    assert torch.equal(during, before)
    maps = list(recording)
    assert [m.words for m in maps] == [["a", "red", "house", "and", "a#2", "green", "tree"], ["two", "cats"]]
    assert all(m.negative.words[:2] == ["low", "quality"] and m.grid == (4, 6) and m.steps == 2 for m in maps)
    with Witness() as witness:
        omnigen(pipe)
    for image, word in enumerate(("green", "cats")):
        whole = pipe.multimodal_processor.add_prefix_instruction(PROMPTS[image])
        size = witness.calls[0][1].shape[-2]
        padding = size - PATCHES - 1 - len(pipe.tokenizer(whole).input_ids)
        keys = [padding + key for key in keys_of(pipe.tokenizer, whole, PROMPTS[image], word)]
        total = torch.zeros(PATCHES, dtype=torch.float64)
        for index in range(len(witness.calls)):
            total += witness.probabilities(index)[image].sum(0)[-PATCHES:, keys].sum(-1)
        wanted = total.unflatten(0, (4, 6))
        error = (maps[image].heat_map(word).double() - wanted).abs().max() / maps[image].num_terms[4, 6]
        assert error < 1e-5
        assert float(wanted.std()) > 0


def test_omnigen_s_edits_have_their_words_around_the_reference() -> None:
    pipe = made.omnigen()
    picture = Image.new("RGB", (48, 32), (200, 40, 40))
    before = omnigen(pipe, EDIT, input_images=[picture])
    with trace(pipe, relations=("image->text", "text->text")) as recording:
        assert torch.equal(omnigen(pipe, EDIT, input_images=[picture]), before)
    (maps,) = recording
    assert recording.failure is None
    assert {"red", "house", "green", "tree"} <= set(maps.words)
    assert bool(torch.isfinite(maps.heat_map("green")).all()) and maps.heat_map("green").sum() > 0


def test_omnigen_s_pictures_of_one_prompt() -> None:
    pipe = made.omnigen()
    with trace(pipe) as recording:
        omnigen(pipe, "two cats", num_images_per_prompt=2)
    assert [m.words for m in recording] == [["two", "cats"]] * 2


@pytest.mark.parametrize("frames", [1, 5])
def test_cosmos_3_is_bit_identical_and_its_words_and_sums_are_right(frames: int) -> None:
    pipe = made.cosmos3()
    before = cosmos(pipe, num_frames=frames)
    with trace(pipe, negative=True) as recording:
        assert torch.equal(cosmos(pipe, num_frames=frames), before)
    assert recording.failure is None
    (maps,) = recording
    latents = 1 if frames == 1 else 2
    assert maps.words[:7] == ["a", "red", "house", "and", "a#2", "green", "tree"]
    assert maps.negative.words[:3] == ["blurry", "and", "dark"] and maps.steps == maps.negative.steps == 2
    with Witness() as witness:
        cosmos(pipe, num_frames=frames)
    # Each of two layers has the text's attention to itself and the video's to both; the prompt's call comes before the other.
    seen = [call for call, (q, k, *_) in enumerate(witness.calls) if q.shape[-2] != k.shape[-2]]
    places = [call for number, call in enumerate(seen) if number % 4 < 2]
    queries, size = (x.shape[-2] for x in witness.calls[places[0]][:2])
    ids, _ = pipe.tokenize_prompt(
        PROMPTS[0], "blurry and dark", num_frames=frames, height=HEIGHT, width=WIDTH, use_system_prompt=True
    )
    assert size - queries == len(ids)
    text = pipe.text_tokenizer.decode(ids)
    offsets = [len(pipe.text_tokenizer.decode(ids[:i])) for i in range(len(ids) + 1)]
    begin = text.rindex(PROMPTS[0]) + PROMPTS[0].index("green")
    spans = [(offsets[i], offsets[i + 1]) for i in range(len(ids))]
    keys = [i for i, (a, b) in enumerate(spans) if a < begin + 5 and b > begin and text[a:b].strip()]
    total = torch.zeros(queries, dtype=torch.float64)
    for call in places:
        total += witness.probabilities(call)[0].sum(0)[:, keys].sum(-1)
    wanted = total.unflatten(0, (latents, 4, 6)) if frames > 1 else total.unflatten(0, (4, 6))
    got = maps.heat_map("green").double()
    assert (got - wanted).abs().max() / maps.num_terms[4, 6] < 1e-5 and float(wanted.std()) > 0


def test_cosmos_3_s_video_stands_beside_its_maps() -> None:
    pipe = made.cosmos3()
    with trace(pipe) as recording:
        cosmos(pipe, output_type="pil", guidance_scale=1.0)
    maps = recording.heat_maps()
    assert recording.failure is None and maps.size == (HEIGHT, WIDTH) and maps.num_frames == 2
    assert maps.video is not None and maps.video.shape == (5, HEIGHT, WIDTH, 3)
