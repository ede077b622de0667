"""DAAM Lens in a running SD.Next: the picture stays, the words are those of its own parser, a refusal is one sentence."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from daam_core import HeatMaps

from .checked import note_checked
from .hosts import encoded, picture
from .running import whole
from .sdnext_server import SDNextServer

WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]
PICTURE = encoded(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
MASK = np.zeros((128, 128), np.uint8)
MASK[32:96, 48:112] = 255
IMG2IMG = {"page": "img2img", "init_images": [PICTURE], "denoising_strength": 0.7, "steps": 4}
HIRES = {
    "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent Nearest", "hr_force": True, "hr_second_pass_steps": 2,
    "denoising_strength": 0.5, "hr_resize_mode": 1,
}  # fmt: skip


def only(maps: list[HeatMaps]) -> HeatMaps:
    (found,) = maps
    whole(found)
    return found


@pytest.mark.parametrize("model", ["tiny", "tiny-xl", "tiny-flow"])
def test_every_kind_of_model_keeps_its_picture_and_has_its_words(sdnext: SDNextServer, model: str) -> None:
    sdnext.options(sd_model_checkpoint=f"Diffusers/{model}")
    try:
        maps, note, drawn = sdnext.recorded({"masks": True})
        pair, note_of_pair, _ = sdnext.recorded(batch_size=2)
    finally:
        sdnext.options(sd_model_checkpoint="Diffusers/tiny")
    assert not note and drawn == 8 and maps[0].words == WORDS
    assert maps[0].size == (128, 128) and maps[0].picture is not None
    assert not note_of_pair and [one.words for one in pair] == [WORDS, WORDS]
    for one in [*maps, *pair]:
        if model == "tiny-flow":  # its softmax runs over text and picture
            terms = {grid: sums.sum(0) / one.num_terms[grid] for grid, sums in one.sums.items()}
            assert all(float(share.min()) > 0 and float(share.max()) < 1 for share in terms.values())
        else:
            whole(one)
    families = {"tiny": "Stable Diffusion 1", "tiny-xl": "Stable Diffusion XL", "tiny-flow": "Flux.1"}
    note_checked("sdnext", families[model])


@pytest.mark.parametrize(
    ("parser", "words"),
    [
        ("native", ["a", "red", "house"]), ("a1111", ["a", "red", "house"]),
        ("fixed", ["a", "(", "red", ":", "1", ".", "3", ")", "house"]),
    ],
)  # fmt: skip
def test_words_are_those_of_the_chosen_parser(sdnext: SDNextServer, parser: str, words: list[str]) -> None:
    sdnext.options(prompt_attention=parser)
    maps, note, _ = sdnext.recorded({"negative": True}, prompt="a (red:1.3) house")
    sdnext.options(prompt_attention="native")
    assert not note and only(maps).words == words
    assert maps[0].negative is not None and maps[0].negative.words == ["star"]


def test_a_weight_is_that_of_its_word(sdnext: SDNextServer) -> None:
    maps, _, _ = sdnext.recorded(prompt="a (red:1.3) house BREAK a green tree")
    assert only(maps).words == ["a", "red", "house", "a#2", "green", "tree"]
    assert [round(token.weight, 2) for token in maps[0].prompt.tokens] == [1, 1.3, 1, 1, 1, 1]
    assert [token.column for token in maps[0].prompt.tokens] == [1, 2, 3, 78, 79, 80]


def test_native_and_fixed_agree_where_the_prompt_has_no_syntax(sdnext: SDNextServer) -> None:
    """Two ways to the same embeddings: one the host's, one the pipeline's own."""
    native, _, _ = sdnext.recorded()
    sdnext.options(prompt_attention="fixed")
    fixed, _, _ = sdnext.recorded()
    sdnext.options(prompt_attention="native")
    for word in WORDS:
        assert torch.allclose(native[0].heat_map(word), fixed[0].heat_map(word), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "size", "steps"),
    [
        (IMG2IMG, (128, 128), 4),
        (IMG2IMG | {"mask": encoded(MASK)}, (128, 128), 4),
        (IMG2IMG | {"mask": encoded(MASK), "inpaint_full_res": True}, (128, 128), 4),
        (HIRES, (192, 192), 4),
        ({"width": 200, "height": 136}, (136, 200), 2),
        ({"cfg_scale": 1}, (128, 128), 2),
        ({"prompt": "a red house and a green tree, " * 20}, (128, 128), 2),
    ],
)
def test_ways_to_a_picture(sdnext: SDNextServer, body: dict[str, Any], size: tuple[int, int], steps: int) -> None:
    maps, _, _ = sdnext.recorded(**body)
    assert only(maps).words[: len(WORDS)] == WORDS and maps[0].size == size and maps[0].steps == steps


@pytest.mark.parametrize(
    ("lens", "body", "said"),
    [
        ({}, {"prompt": "a [red:blue:0.5] house"}, "This prompt changes while the picture is sampled"),
        ({"tau": 3}, {}, "tau is a number from 0 to 1"),
        ({"words": "zebra"}, {}, "'zebra' is not in the prompt"),
    ],
)
def test_a_refusal_is_one_sentence(sdnext: SDNextServer, lens: dict[str, Any], body: dict[str, Any], said: str) -> None:
    _, note, drawn = sdnext.recorded(lens, **body)
    assert said in note and not drawn and "No picture was finished" not in note
    assert "Traceback" not in sdnext.log().split("DAAM Lens")[-1]


def test_its_api_serves_the_masks_of_a_run(sdnext: SDNextServer) -> None:
    _, info = sdnext.make({"overlays": False})
    run = info["extra_generation_params"]["DAAM Lens runs"]
    assert sdnext.get("/daam-lens/v1/runs")["runs"][0]["id"] == run
    masks = sdnext.post(f"/daam-lens/v1/runs/{run}/masks", {"words": ["house"], "method": "best"})["masks"]
    assert list(masks) == ["house"]


def test_a_lora_is_no_word_and_its_picture_stays(sdnext: SDNextServer) -> None:
    maps, note, _ = sdnext.recorded(prompt="a red house and a green tree <lora:strong:1>")
    plain, _ = sdnext.make()
    painted, _ = sdnext.make(prompt="a red house and a green tree <lora:strong:1>")
    assert (plain[0] != painted[0]).any(), "the LoRA did nothing: the test shows nothing"
    assert not note and only(maps).words == WORDS


def test_a_refiner_is_not_recorded_and_the_words_have_their_maps(sdnext: SDNextServer) -> None:
    """Its own steps are another model's; those of the model before it are there."""
    sdnext.options(sd_model_checkpoint="Diffusers/tiny-xl", sd_model_refiner="Diffusers/tiny-xl")
    try:
        refined: dict[str, Any] = {"enable_hr": True, "refiner_steps": 4, "refiner_start": 0.5, "steps": 4}
        maps, note, _ = sdnext.recorded(**refined)
        assert not note and maps[0].words == WORDS and maps[0].steps <= 4
    finally:
        sdnext.options(sd_model_checkpoint="Diffusers/tiny", sd_model_refiner="None")


def test_its_plots_have_our_axes(sdnext: SDNextServer) -> None:
    """A cell for each word, drawn; what is not read there is no axis."""
    infos = [one for one in sdnext.get("/sdapi/v1/script-info") if one["name"] == "xyz grid script"]
    labels = next(arg["choices"] for one in infos for arg in one["args"] if arg["choices"])
    each = [label if isinstance(label, str) else label[0] for label in labels]
    ours = [label for label in each if "DAAM Lens" in label]
    assert ours == [f"[DAAM Lens] {name}" for name in ("words", "threshold", "mask method", "layers")]
    nothing = ["Nothing", "", []]
    more = [False, False, False, True, False, True, False, False, 0, False, "None", 2, True, 1, 1]
    args = ["[DAAM Lens] words", "house, tree", [], *nothing, *nothing, *more]
    images, _ = sdnext.make({}, script_name="xyz grid script", script_args=args)
    _, house, tree = images
    assert house.shape == tree.shape and house.shape[0] > house.shape[1], "the word stands below"
    assert (house != tree).any()


def test_live_heat(sdnext: SDNextServer) -> None:
    """Over its own preview, the picture stays; a word that is not there is a sentence."""
    sdnext.options(show_progress_type="Simple")
    try:
        body: dict[str, Any] = {"steps": 40, "prompt": "a red house"}
        bare, _ = sdnext.make(**body)
        previews, done = set(), threading.Event()

        def look() -> None:
            while not done.is_set():
                previews.add(sdnext.get("/sdapi/v1/progress").get("current_image") or "")
                time.sleep(0.1)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            seen, info = sdnext.make({"live_word": "house", "overlays": False}, **body)
        finally:
            done.set()
            thread.join()
        assert (bare[0] == seen[0]).all() and "DAAM Lens note" not in info["extra_generation_params"]
        sizes = {picture(one).shape for one in previews if one}
        assert any(size[1] == 512 and size[0] > 512 for size in sizes), sizes
        _, info = sdnext.make({"live_word": "zebra", "overlays": False})
        assert "No live heat: 'zebra' is not in the prompt" in info["extra_generation_params"]["DAAM Lens note"]
    finally:
        sdnext.options(show_progress_type="TAESD")
