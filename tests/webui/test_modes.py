"""Every way to make a picture in a WebUI: it stays the same, and its maps are those that a witness computes from scratch."""

from __future__ import annotations

import threading
import time
import urllib.error
from typing import Any

import numpy as np
import pytest
import torch

from .checked import note_checked
from .explicit import Call, word_sum
from .hosts import encoded
from .running import PROMPT, Live, Result, word_at

pytestmark = [pytest.mark.host, pytest.mark.slow]
COLUMN = {word: i for i, word in enumerate(PROMPT.split(), 1)}  # every word of PROMPT is one token


def check(result: Result, number: int, word: str, columns: Any) -> None:
    """The maps of picture `number` against Eq. 6 written out."""
    found = word_at(result.maps[number], word)
    assert found
    for places, sums in found.items():
        expected = word_sum(result.calls, places, columns)
        assert expected.max() > 0
        assert torch.allclose(sums, expected, rtol=2e-4, atol=1e-5), (word, places)


def at(call: Call, columns: list[int], image: int = 0, images: int = 1, negative: bool = False) -> dict[int, list[int]]:
    """The row of a picture's prompt (or negative prompt) in a call, with the context columns of a word in it.

    A call holds prompts and negative prompts, one part each. Forge's tells which, and may have one of them alone: Forge classic
    leaves the negative prompt out of the first step, and free memory decides what stands together. Nothing where it has none.
    """
    kinds = call["cond_or_uncond"] or [0, 1][: call["rows"] // images]  # A1111 has them in this order
    kind = int(negative)
    assert call["rows"] == len(kinds) * images
    return {kinds.index(kind) * images + image: columns} if kind in kinds else {}


def test_txt2img(live: Live) -> None:
    live.compare(steps=3)
    seen = live.make(lens={}, watch=True, steps=3)
    for word in ("house", "tree", "red"):
        check(seen, 0, word, lambda _, call: at(call, [COLUMN[word]]))  # noqa: B023
    note_checked(live.name, "Stable Diffusion 1")


def test_not_square(live: Live) -> None:
    live.compare(width=live.small, height=live.small + 64)


def test_batch_size_and_count(live: Live) -> None:
    seen = live.compare(batch_size=2, n_iter=2)
    assert len(seen.maps) == 4
    seen = live.make(lens={}, watch=True, batch_size=2)
    for image in (0, 1):
        check(seen, image, "house", lambda _, call: at(call, [COLUMN["house"]], image, 2))  # noqa: B023


def test_negative_prompt(live: Live) -> None:
    live.compare(lens={"negative": True}, negative_prompt="blue boat")
    seen = live.make(lens={"negative": True}, watch=True, negative_prompt="blue boat")
    seen.maps = [seen.maps[0].negative]
    check(seen, 0, "boat", lambda _, call: at(call, [2], negative=True))


def test_a_negative_prompt_that_is_left_out(live: Live) -> None:
    """At a CFG scale of 1, by Forge and its kin; AUTOMATIC1111 gives it to the model all the same."""
    seen = live.compare(lens={"negative": True}, negative_prompt="blue boat", cfg_scale=1)
    assert (seen.maps[0].negative is None) == ("The model was not given the negative prompt" in seen.note)
    assert (seen.maps[0].negative is None) == (live.name != "a1111")


def test_and(live: Live) -> None:
    prompt = "a red house AND a green tree :0.6"
    live.compare(prompt=prompt)
    seen = live.make(lens={}, watch=True, prompt=prompt)

    def columns(_: int, call: Call) -> dict[int, list[int]]:
        kinds = call["cond_or_uncond"] or [0, 0, 1]
        rows = [i for i, kind in enumerate(kinds) if kind == 0]
        # Forge takes them from the last to the first.
        return {rows[0] if call["cond_or_uncond"] else rows[1]: [3]}

    check(seen, 0, "tree", columns)
    assert seen.maps[0].words == ["a", "red", "house", "a#2", "green", "tree"]
    assert len(live.compare(prompt=prompt, batch_size=2).maps) == 2


def test_prompt_editing(live: Live) -> None:
    prompt = "a [red:blue:0.5] house"
    live.compare(prompt=prompt, steps=4)
    seen = live.make(lens={}, watch=True, prompt=prompt, steps=4)
    assert seen.maps[0].words == ["a", "red", "house", "blue"]
    check(seen, 0, "house", lambda _, call: at(call, [3]))
    # The host's rule is `step <= end`: the first text is said at steps 0, 1 and 2.
    check(seen, 0, "red", lambda n, call: at(call, [2]) if n <= 2 else {})
    check(seen, 0, "blue", lambda n, call: at(call, [2]) if n > 2 else {})


def test_alternating_words(live: Live) -> None:
    seen = live.compare(prompt="a [red|blue] house", steps=4)
    assert seen.maps[0].words == ["a", "red", "house", "blue"]


def test_long_prompt_and_break(live: Live) -> None:
    prompt = "a red house BREAK " + "old small sky " * 30 + "green tree"
    live.compare(prompt=prompt)
    seen = live.make(lens={}, watch=True, prompt=prompt)
    # Chunk 0 ends at BREAK; chunk 1 holds 75 of the words after it, chunk 2 the rest.
    after = ("old small sky " * 30 + "green tree").split()
    tree = after.index("tree")
    column = (1 + tree // 75) * 77 + 1 + tree % 75
    width = 3 * 77

    def columns(_: int, call: Call) -> dict[int, list[int]]:
        keys = call["layers"][0]["k"].shape[1]
        own = [column + i * width for i in range(keys // width)]
        if call["rows"] == 1 and not call["cond_or_uncond"]:  # A1111's, of texts of unlike lengths
            return {0: own} if keys == width else {}
        return at(call, own)

    check(seen, 0, "tree", columns)


def test_weights_change_no_words(live: Live) -> None:
    seen = live.compare(prompt="a (red:1.3) house and ((green)) [tree]")
    assert seen.maps[0].words == ["a", "red", "house", "and", "green", "tree"]
    assert seen.maps[0].prompt.find("red").weight == pytest.approx(1.3)


def test_old_emphasis_implementation(live: Live) -> None:
    """A1111's setting for old seeds: a bracket is left out, the figure behind a colon is part of the text, BREAK is a word."""
    without_settings(live, {"use_old_emphasis_implementation": True})
    if live.name != "a1111":
        pytest.skip(f"{live.name} has the setting, and another text encoder")
    live.server.post("/sdapi/v1/options", {"use_old_emphasis_implementation": True})
    try:
        prompt = "a (red:1.3) house with cat-toy and BREAK tree"
        live.compare(prompt=prompt, lens={"concepts": "sky"})
        seen = live.make(lens={}, watch=True, prompt=prompt)
        # start, a, red, :, 1, ., 3, house, with, two of the embedding, and, then the letters of "break"
        for word, columns in (("red", [2]), ("house", [7]), ("with", [8]), ("cat-toy", [9, 10]), ("and", [11])):
            check(seen, 0, word, lambda _, call: at(call, columns))  # noqa: B023
        assert "tree" in seen.maps[0].words
        seen = live.make(lens={}, prompt="old small sky " * 30)  # which is cut off, where the new one has a second chunk
        assert not seen.note and all(sums.shape[0] == 77 for sums in seen.maps[0].sums.values())
    finally:
        live.server.post("/sdapi/v1/options", {"use_old_emphasis_implementation": False})


def test_embedding(live: Live) -> None:
    seen = live.compare(prompt="a cat-toy and a red house")
    assert "cat-toy" in seen.maps[0].words
    assert len(seen.maps[0].prompt.find("cat-toy").channels) == 2


def test_lora_and_style(live: Live) -> None:
    seen = live.compare(prompt=f"{PROMPT} <lora:strong:1>", styles=["night"])
    assert "lora" not in " ".join(seen.maps[0].words)
    assert {"night", "sky"} <= set(seen.maps[0].words)
    plain = live.make(prompt=PROMPT, styles=["night"])
    assert (plain.images[0] != seen.images[0]).any(), "the LoRA did nothing: the test shows nothing"


def test_prompt_matrix(live: Live) -> None:
    seen = live.compare(
        prompt="a house|red|green",
        script_name="Prompt matrix",
        script_args=[False, False, "positive", "comma", 0],
        batch_size=2,
    )
    words = [m.words for m in sorted(seen.maps, key=lambda m: len(m.prompt.text))]
    assert len(words) == 4 and "red" in words[1] and "red" not in words[2]


def test_prompts_from_file(live: Live) -> None:
    lines = "a red house\na green tree and a boat"
    seen = live.compare(script_name="Prompts from file or textbox", script_args=[False, False, "start", lines], prompt="")
    assert [m.words for m in seen.maps] == [["a", "red", "house"], ["a", "green", "tree", "and", "a#2", "boat"]]


@pytest.mark.parametrize("kind", ["xl", "v2"])
def test_other_kinds_of_checkpoint(live: Live, kind: str) -> None:
    """Stable Diffusion XL (two text encoders side by side) and 2 (open_clip)."""
    if (live.name, kind) == ("reforge", "v2"):
        pytest.skip("reforge builds every Stable Diffusion 2 at its full width, which does not fit into a test")
    if live.name == "neo":
        pytest.skip("neo knows SDXL at its full depth only, which takes 10 GB here, and has dropped Stable Diffusion 2")
    live.server.post("/sdapi/v1/options", {"sd_model_checkpoint": kind})
    try:
        seen = live.compare(prompt=f"{PROMPT} BREAK old sky", negative_prompt="blue", lens={"negative": True})
        assert seen.maps[0].words == [*PROMPT.split()[:4], "a#2", "green", "tree", "old", "sky"]
        seen = live.make(lens={}, watch=True)
        for word in ("house", "tree"):
            check(seen, 0, word, lambda _, call: at(call, [COLUMN[word]]))  # noqa: B023
        note_checked(live.name, {"xl": "Stable Diffusion XL", "v2": "Stable Diffusion 2"}[kind])
    finally:
        live.server.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny"})


def test_hypernetwork(live: Live) -> None:
    prompt = f"{PROMPT} <hypernet:bend:1>"
    seen = live.compare(prompt=prompt)
    assert "bend" not in seen.maps[0].words
    if live.name == "a1111":  # the others read the tag, but their attention has no place for hypernetworks
        assert (live.make().images[0] != seen.images[0]).any(), "the hypernetwork did nothing: the test shows nothing"
    seen = live.make(lens={}, watch=True, prompt=prompt)
    check(seen, 0, "house", lambda _, call: at(call, [COLUMN["house"]]))


def test_controlnet(live: Live) -> None:
    if "controlnet" not in live.server.get("/sdapi/v1/scripts")["txt2img"]:
        pytest.skip(f"{live.name} comes without ControlNet")
    model = next(name for name in live.server.get("/controlnet/model_list")["model_list"] if name.startswith("control"))
    unit = {"enabled": True, "module": "None", "model": model, "image": encoded(_start(live)), "weight": 1.0}
    more: dict[str, Any] = {"alwayson_scripts": {"ControlNet": {"args": [unit]}}}
    seen = live.compare(**more)
    assert (live.make().images[0] != seen.images[0]).any(), "the ControlNet did nothing: the test shows nothing"
    seen = live.make(lens={}, watch=True, **more)
    check(seen, 0, "house", lambda _, call: at(call, [COLUMN["house"]]))


def hires(live: Live, upscaler: str = "") -> dict[str, Any]:
    """What asks for a second pass at one and a half times the size; by the latent where the host can do that."""
    offered = [one["name"] for page in ("upscalers", "latent-upscale-modes") for one in live.server.get(f"/sdapi/v1/{page}")]
    if upscaler and upscaler not in offered:
        pytest.skip(f"{live.name} has no upscaler {upscaler}: {', '.join(offered)}")
    size = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": upscaler or ("Latent" if "Latent" in offered else "None")}
    return {**size, "denoising_strength": 0.7, "hr_second_pass_steps": 2}


@pytest.mark.parametrize("passes", ["first", "second", "both"])
def test_hires_fix(live: Live, passes: str) -> None:
    more = hires(live)
    more |= {"hr_prompt": "a blue boat", "steps": 3}
    seen = live.compare(lens={"hires": passes}, **more)
    words = seen.maps[0].words
    assert ("house" in words) == (passes != "second") and ("boat" in words) == (passes != "first")
    assert seen.maps[0].size == seen.images[0].shape[:2] and seen.images[0].shape[0] > live.small


def test_hires_fix_to_another_aspect(live: Live) -> None:
    """The host cuts the first pass to the new aspect: its maps have to be cut at the same places. Forge Neo stretches it."""
    side = live.small
    more = {**hires(live), "hr_resize_x": side, "hr_resize_y": 2 * side, "steps": 2}
    seen = live.compare(lens={"hires": "first"}, **more)
    maps = seen.maps[0]
    assert maps.size == (2 * side, side)
    seen = live.make(lens={"hires": "first"}, watch=True, **more)
    first_pass = [call for call in seen.calls if call["sample"].shape[-2:] == seen.calls[0]["sample"].shape[-2:]]
    assert 2 <= len(first_pass) < len(seen.calls)

    def house(places: int) -> torch.Tensor:
        return word_sum(first_pass, places, lambda _, call: at(call, [COLUMN["house"]]))

    # At twice the size the first pass has 2 x 2 sides; a quarter of its columns is cut off on the left and on the right.
    for places, found in word_at(seen.maps[0], "house").items():
        if live.name == "neo":
            assert torch.allclose(found, house(places), rtol=2e-4)
            continue
        height = round((2 * places) ** 0.5)
        cut = house(height * height).reshape(height, height)[:, height // 4 : height - height // 4]
        assert torch.allclose(found.reshape(height, height // 2), cut, rtol=2e-4)


@pytest.mark.parametrize("upscaler", ["None", "Lanczos", "Latent (nearest)"])
def test_hires_upscalers(live: Live, upscaler: str) -> None:
    more = hires(live, upscaler)
    live.compare(**more)


def test_hires_with_another_checkpoint(live: Live) -> None:
    more = hires(live)
    live.compare(**more, hr_checkpoint_name="other")


def test_refiner(live: Live) -> None:
    live.compare(refiner_checkpoint="other", refiner_switch_at=0.5, steps=4)


def _start(live: Live, side: int = 0) -> Any:
    side = side or live.small
    y, x = np.mgrid[:side, :side]
    return np.stack([(x * 255 // side), (y * 255 // side), np.full_like(x, 90)], -1).astype(np.uint8)


def test_img2img(live: Live) -> None:
    live.compare("img2img", init_images=[encoded(_start(live))], denoising_strength=0.9, steps=3)


@pytest.mark.parametrize("only_masked", [False, True])
def test_inpaint(live: Live, only_masked: bool) -> None:
    side = live.small * 2
    mask = np.zeros((side, side), np.uint8)
    mask[side // 2 : side - 8, side // 2 : side - 8] = 255
    seen = live.compare(
        "img2img", init_images=[encoded(_start(live, side))], mask=encoded(mask), inpaint_full_res=only_masked,
        inpaint_full_res_padding=4, denoising_strength=0.9, steps=3, mask_blur=0, inpainting_fill=1,
    )  # fmt: skip
    maps = seen.maps[0]
    if only_masked:
        assert maps.size == (side, side)
        heat = maps.heat_map("house", size=(side, side))
        assert float(heat[: side // 4, : side // 4].abs().max()) < 1e-3 * float(heat.max())  # nothing was painted there
        assert float(heat[side // 2 + 8 :, side // 2 + 8 :].mean()) > 0


def without_settings(live: Live, wanted: dict[str, Any]) -> None:
    """Skips a test of settings that this host has dropped; it refuses them."""
    missing = sorted(set(wanted) - set(live.server.get("/sdapi/v1/options")))
    if missing:
        pytest.skip(f"{live.name} has no setting {', '.join(missing)}")


@pytest.mark.parametrize(
    "more",
    [
        {"subseed": 3, "subseed_strength": 0.4},
        {"cfg_scale": 1},
        {"sampler_name": "Heun"},
        {"sampler_name": "DDIM"},
        {"sampler_name": "UniPC", "steps": 3},
        {"sampler_name": "Euler a", "s_noise": 1.0},
        {"override_settings": {"token_merging_ratio": 0.5}},
        {"override_settings": {"batch_cond_uncond": False}},
        {"override_settings": {"batch_cond_uncond": False}, "prompt": "a red house AND a tree", "batch_size": 2},
        {"override_settings": {"pad_cond_uncond": True}, "prompt": "old small sky " * 30},
        {"override_settings": {"s_min_uncond": 20.0}},
        {"tiling": True},
    ],
    ids=lambda more: " ".join(f"{k}={v}" for k, v in more.items() if k != "prompt")[:60],
)
def test_other_ways(live: Live, more: dict[str, Any]) -> None:
    without_settings(live, more.get("override_settings", {}))
    assert live.compare(**more).maps


def test_dpm_adaptive(live: Live) -> None:
    """It chooses its own number of steps, and a random model asks for hundreds from pure noise, but for few from a picture."""
    start = encoded(_start(live))
    seen = live.compare("img2img", init_images=[start], denoising_strength=0.15, sampler_name="DPM adaptive", steps=20)
    assert seen.maps[0].steps > 2


def test_rows_of_split_batches(live: Live) -> None:
    without_settings(live, {"batch_cond_uncond": False})
    seen = live.make(lens={}, watch=True, override_settings={"batch_cond_uncond": False})
    if seen.calls[0]["rows"] == 2:
        pytest.skip(f"{live.name} has no such setting")
    check(seen, 0, "house", lambda n, call: {0: [COLUMN["house"]]} if n % 2 == 0 else {})


@pytest.mark.parametrize("name", ["sdp", "sdp-no-mem", "sub-quadratic", "V1", "InvokeAI", "Doggettx", "None"])
def test_attention_optimisations(live: Live, name: str) -> None:
    if live.name != "a1111":
        pytest.skip("Forge and its relatives choose their attention when they start")
    live.server.post("/sdapi/v1/options", {"cross_attention_optimization": name})
    try:
        live.compare()
    finally:
        live.server.post("/sdapi/v1/options", {"cross_attention_optimization": "Automatic"})


def test_hypertile(live: Live) -> None:
    settings = {"hypertile_enable_unet": True, "hypertile_max_tile_unet": 64, "hypertile_max_depth_unet": 2}
    before = {key: value for key, value in live.server.get("/sdapi/v1/options").items() if key in settings}
    if not before:
        pytest.skip(f"{live.name} has Hypertile as a script of its own")
    live.server.post("/sdapi/v1/options", settings)
    try:
        live.compare()
    finally:
        live.server.post("/sdapi/v1/options", before)


@pytest.mark.parametrize("how", ["interrupt", "skip"])
def test_interrupted(live: Live, how: str) -> None:
    def stop() -> None:
        while not done.is_set():
            progress = live.server.get("/sdapi/v1/progress?skip_current_image=true")
            if progress["state"]["sampling_step"] >= 2:
                live.server.post(f"/sdapi/v1/{how}", {})
                return
            time.sleep(0.02)

    done = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        seen = live.make(lens={}, steps=60)
    finally:
        done.set()
        thread.join()
    assert seen.images and seen.hooks == 0
    # The host does not save what was interrupted; the maps are there all the same.
    run = seen.info["extra_generation_params"].get("DAAM Lens runs")
    assert seen.note or 1 <= live.server.get(f"/daam-lens/v1/runs/{run}")["steps"] < 60
    live.compare()


@pytest.mark.parametrize("where", ["cfg_denoiser", "process_batch"])
def test_another_script_fails(live: Live, where: str) -> None:
    bare = live.make()
    live.server.get(f"/witness/fail?where={where}")
    seen = live.make(lens={})
    assert (seen.images[0] == bare.images[0]).all() and seen.maps and seen.hooks == 0


def test_the_model_fails(live: Live) -> None:
    live.server.get("/witness/fail?where=unet")
    with pytest.raises(urllib.error.HTTPError):
        live.make(lens={})
    live.server.get("/witness/stop?path=")
    live.compare()  # which asserts that nothing is hooked: hosts hold on to the failed step, the next run lets go
