"""`trace(pipe)` on pipelines that are made of blocks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks._helpers import AttentionProcessorRegistry
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanAttnProcessor2_0
from torch import Tensor

from daam_core import trace
from daam_core.errors import UnsupportedModel
from daam_core.types import Side

from ..capture.attention_witness import Witness
from ..models import PROMPT, pipeline
from . import detour_pipelines as detour
from .pipeline_cases import CASES, NEGATIVES, PROMPTS, at, chat
from .test_transformer_tasks import autoencoder
from .unet_witness import Witness as UNetWitness
from .video_pipelines import wan_with_autoencoder

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


def of_blocks(kind: str, parts: dict[str, Any]) -> Any:
    """A modular pipeline of the parts of an ordinary one."""
    pipe = getattr(diffusers, kind)()
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
    pipe = of_blocks(kind, {**CASES[name].make().components, "vae": vae()})

    def run() -> Any:
        options = {"height": size[0], "width": size[1], "num_inference_steps": 2, "generator": torch.Generator().manual_seed(1)}
        return pipe(prompt=list(PROMPTS), negative_prompt=list(NEGATIVES), output="latents", **options)

    before = run()
    with trace(pipe) as recording:
        during = run()
    assert torch.equal(during, before) and recording.failure is None
    assert [maps.words for maps in recording] == [PROMPTS[0].replace("a green", "a#2 green").split(), PROMPTS[1].split()]
    assert all(maps.size == size and maps.grid == (4, 6) and maps.steps == 2 for maps in recording)


def sdxl(guider: Any = None) -> Any:
    """Stable Diffusion XL of blocks."""
    pipe = diffusers.StableDiffusionXLModularPipeline()
    whole = pipeline("sdxl")
    names = ("unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
    pipe.update_components(**{name: getattr(whole, name) for name in names}, vae=autoencoder())
    if guider is not None:
        pipe.update_components(guider=guider)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint_xl(pipe: Any, **more: Any) -> Tensor:
    options: dict[str, Any] = {
        "prompt": PROMPT, "negative_prompt": "a star", "num_inference_steps": 2, "height": 64, "width": 96,
        "generator": torch.Generator().manual_seed(1), "output": "images", "output_type": "pt",
    }  # fmt: skip
    return torch.as_tensor(pipe(**{**options, **more}))


def test_a_unet_of_blocks_is_read() -> None:
    """Stable Diffusion XL: both sides in forwards of their own, two pictures of each prompt, words of both encoders' texts."""
    pipe = sdxl()
    more = {"prompt": [PROMPT, "a boat"], "negative_prompt": ["a star", ""], "num_images_per_prompt": 2}
    more |= {"prompt_2": [PROMPT, "a moon"]}
    before = paint_xl(pipe, **more)
    witness = UNetWitness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        assert torch.equal(paint_xl(pipe, **more), before)
    assert recording.failure is None
    words = [maps.words for maps in recording]
    assert words == [["a", "red", "house", "and", "a#2", "green", "tree"]] * 2 + [["a", "boat", "moon"]] * 2
    assert [len(forward.texts) for forward in witness.forwards] == [4] * 4
    for number, maps in enumerate(recording):
        assert (maps.steps, maps.size, maps.negative.words) == (2, (64, 96), [["a", "star"], []][number // 2])
        sides: tuple[tuple[Side, int], ...] = (("prompt", 0), ("negative", 1))
        for side, which in sides:
            image = maps.sides[side]
            for (h, w), channels in image.sums.items():
                true = witness.forwards[which].sums[h * w][number] + witness.forwards[which + 2].sums[h * w][number]
                columns = [token.column for token in image.prompt.tokens]
                expected = true[:, columns].T
                assert not columns or (channels[1:-2].flatten(1) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_concepts_are_not_read_from_a_unet_of_blocks() -> None:
    with pytest.raises(UnsupportedModel, match="Concepts are not read from modular pipelines, and StableDiffusionXLModular"):
        trace(sdxl(), concepts=["sky"])


def test_a_negative_prompt_that_a_guider_answers_without_scores_is_told() -> None:
    """Its maps were of an attention that painted nothing."""
    pipe = of_blocks("QwenImageModularPipeline", {**CASES["qwen"].make().components, "vae": qwen_autoencoder()})
    skipped = diffusers.LayerSkipConfig(
        fqn="transformer_blocks", indices=[0], skip_attention=False, skip_attention_scores=True, skip_ff=False
    )
    pipe.update_components(guider=diffusers.AutoGuidance(auto_guidance_config=skipped))
    made = []
    for negative in (False, True):
        with trace(pipe, negative=negative) as recording:
            made.append(
                pipe(
                    prompt=PROMPTS[0], negative_prompt=NEGATIVES[0], output="latents", height=32, width=48,
                    num_inference_steps=1, generator=torch.Generator().manual_seed(1),
                )
            )  # fmt: skip
        assert ("gave out its values as they are" in str(recording.failure)) == negative
    assert torch.equal(*made)


LAYERS: dict[str, Any] = {"fqn": "blocks", "indices": [0]}
GUIDERS: dict[str, Callable[[], Any]] = {
    "skipped layers": lambda: diffusers.SkipLayerGuidance(
        skip_layer_config=diffusers.LayerSkipConfig(**LAYERS), skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
    ),
    "perturbed attention": lambda: diffusers.PerturbedAttentionGuidance(
        perturbed_guidance_config=diffusers.LayerSkipConfig(
            **LAYERS, skip_attention=False, skip_attention_scores=True, skip_ff=False
        ),
        perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0,
    ),
    "smoothed energy": lambda: diffusers.SmoothedEnergyGuidance(
        seg_guidance_config=diffusers.SmoothedEnergyGuidanceConfig(**LAYERS)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDERS)
def test_a_guider_that_spoils_the_attention_is_not_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step asks the model once more for the prompt, with something of it spoilt: that answer's attention is no map.

    Of Wan, whose layers all of these guiders know, one of them by a name that its processor has no more; its prompts are
    cleaned by a package that is not here.
    """
    known = AttentionProcessorRegistry.get(WanAttnProcessor2_0)
    monkeypatch.setitem(AttentionProcessorRegistry._registry, WanAttnProcessor, known)
    monkeypatch.setattr(importlib.import_module("diffusers.modular_pipelines.wan.encoders"), "ftfy",
                        SimpleNamespace(fix_text=str), raising=False)  # fmt: skip
    pipe = of_blocks("WanModularPipeline", dict(wan_with_autoencoder().components))
    pipe.update_components(guider=GUIDERS[name]())

    def run() -> Tensor:
        out = pipe(
            prompt=PROMPTS[0], negative_prompt=NEGATIVES[0], height=HEIGHT, width=WIDTH, num_frames=5, num_inference_steps=3,
            generator=torch.Generator().manual_seed(1), output="latents",
        )  # fmt: skip
        return torch.as_tensor(out)

    before = run()
    with trace(pipe) as recording:
        assert torch.equal(run(), before)
    assert recording.failure is None
    (maps,) = recording
    assert (maps.steps, maps.num_frames, maps.num_terms[4, 6]) == (3, 2, 3 * 2 * 2)
    forwards: list[int] = []
    times: list[float] = []
    witness = Witness()

    def begin(_model: Any, _args: Any, given: dict[str, Any]) -> None:
        forwards.append(len(witness.calls))
        times.append(float(given["timestep"].flatten()[0]))

    handle = pipe.transformer.register_forward_pre_hook(begin, with_kwargs=True)
    with witness:
        run()
    handle.remove()
    firsts = [n for n, time in enumerate(times) if time not in times[:n]]
    assert len(firsts) == 3 and len(times) > 6, "the guider asked no more than guidance does"
    keys = at(pipe.tokenizer, PROMPTS[0], PROMPTS[0], "green")
    total = torch.zeros(2 * PATCHES, dtype=torch.float64)
    for first in firsts:
        for index in range(forwards[first], forwards[first + 1]):
            queries, columns = (x.shape[-2] for x in witness.calls[index][:2])
            if queries == 2 * PATCHES != columns:
                total += witness.probabilities(index)[0].sum(0)[:, keys].sum(-1)
    error = (maps.heat_map("green").double() - total.unflatten(0, (2, 4, 6))).abs().max() / maps.num_terms[4, 6]
    assert error < 1e-5 and float(total.std()) > 0
