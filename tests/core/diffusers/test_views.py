"""A panorama is painted in several views of its picture: at every place the maps are the mean over the views that have it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPanoramaPipeline, StableDiffusionPipeline

from daam_core import trace
from daam_core.capture.view_recording import views_of
from daam_core.errors import NothingRecorded, UnsupportedModel

from ..models import PROMPT, paint, pipeline
from .test_unet_calls import sharing
from .unet_witness import Witness

WINDOW, STRIDE = 64, 8


def panorama() -> Any:
    pipe = sharing(pipeline("coarse"), StableDiffusionPanoramaPipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def truth(witness: Witness, text: torch.Tensor, views: list[tuple[int, int]], total: tuple[int, int], at_once: int) -> Any:
    """By positions of a window: float64 `[h, w, keys]` of the whole picture, summed over steps; the mean over the views."""
    maps: dict[int, torch.Tensor] = {}
    counts: dict[int, torch.Tensor] = {}
    left = list(views)
    steps = 0
    for forward in witness.forwards:
        left, now = (left or list(views)), []
        now, left = left[:at_once], left[at_once:]
        rows = [i for i, own in enumerate(forward.texts) if torch.equal(own, text)]
        assert len(rows) == len(now)
        for row, (top, start) in zip(rows, now, strict=True):
            for n, sums in forward.sums.items():
                side = int(n**0.5)
                factor = WINDOW // side
                height, width = total[0] // factor, total[1] // factor
                canvas = maps.setdefault(n, torch.zeros(height, width, 77, dtype=torch.float64))
                count = counts.setdefault(n, torch.zeros(height, width, dtype=torch.float64))
                y = (top // factor + torch.arange(side))[:, None]
                x = (start // factor + torch.arange(side)) % width
                canvas[y, x] += sums[row].view(side, side, 77)
                count[y, x] += 1
        steps += not left
    return {n: canvas / (counts[n] / steps)[..., None] for n, canvas in maps.items()}


CASES: dict[str, tuple[dict[str, Any], list[tuple[int, int]]]] = {
    "wide": ({"width": 576}, [(0, 0), (0, 8)]),
    "high, two at once": ({"height": 640, "view_batch_size": 2}, [(0, 0), (8, 0), (16, 0)]),
    "without guidance": ({"width": 640, "guidance_scale": 1.0, "view_batch_size": 3}, [(0, 0), (0, 8), (0, 16)]),
    "round": (
        {"width": 576, "circular_padding": True, "view_batch_size": 4, "num_inference_steps": 1},
        [(0, 8 * i) for i in range(9)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_maps_are_the_mean_over_the_views(name: str) -> None:
    """Against float64 attention of each view, put at its place by hand; the picture is bit-identical."""
    given, views = CASES[name]
    pipe = panorama()
    options = {"height": 512, "width": 512, "num_inference_steps": 2, "output_type": "latent", **given}
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    before = paint(pipe, **options)
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True, keep="steps") as recording:
        assert torch.equal(paint(pipe, **options), before)
    maps = recording.heat_maps()
    assert (maps.negative is None) == (name == "without guidance")
    steps = options["num_inference_steps"]
    assert (maps.steps, maps.size, maps.words[2]) == (steps, (options["height"], options["width"]), "house")
    total = (options["height"] // 8, options["width"] // 8)
    true = truth(witness, text, views, total, options.get("view_batch_size", 1))
    terms = 0
    for (h, w), channels in maps.sides["prompt"].sums.items():
        (expected,) = (x for x in true.values() if x.shape[:2] == (h, w))
        expected = expected[..., 1:8].permute(2, 0, 1)
        assert (channels[1:-2] - expected).abs().max() <= 1e-5 * expected.abs().max()
        layers = sum(layer.heads for layer in maps.layers if layer.grid == (h, w))
        assert maps.num_terms[h, w] == steps * layers
        terms += layers
    assert terms == sum(layer.heads for layer in maps.layers)
    assert float(sum(step.sum() for step in maps.steps_of("house"))) > 0


def test_several_panoramas_without_guidance_are_told_apart() -> None:
    pipe = panorama()
    options = {"height": 512, "width": 576, "guidance_scale": 1.0, "output_type": "latent", "num_inference_steps": 1}
    texts = pipe.encode_prompt([PROMPT, "a star"], "cpu", 1, False)[0]
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, [PROMPT, "a star"], **options)
    for number, maps in enumerate(recording):
        true = truth(witness, texts[number], [(0, 0), (0, 8)], (64, 72), 1)
        columns = [token.column for token in maps.sides["prompt"].prompt.tokens]
        for (h, w), channels in maps.sides["prompt"].sums.items():
            (expected,) = (x[..., columns].permute(2, 0, 1) for x in true.values() if x.shape[:2] == (h, w))
            assert (channels[1:-2] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_images_per_prompt": 2, "width": 576}, "with guidance, 2 panoramas at once are given each other's texts"),
        ({"width": 584}, r"views of 64 x 64 latents at \(0, 0\) of 73 x 64, where .* multiples of 64"),
    ],
)
def test_what_cannot_be_put_at_its_place_is_refused(options: dict[str, Any], reason: str) -> None:
    pipe = panorama()
    with trace(pipe) as recording:
        paint(pipe, **{"height": 512, "num_inference_steps": 1, "output_type": "latent", **options})
    with pytest.raises(NothingRecorded, match=reason):
        recording.heat_maps()


def test_more_views_than_can_be_held_are_refused() -> None:
    windows = panorama().get_views(640, 8192)
    with pytest.raises(UnsupportedModel, match=f"painted in {len(windows)} views, and at most 256 are read"):
        views_of(windows, (80, 1024))


def test_a_view_that_shows_a_place_twice_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="shows places of it twice"):
        views_of([(0, 64, 8, 72)], (64, 40))


class Elsewhere(StableDiffusionPanoramaPipeline):
    """Says which views it paints, and paints them in another order."""

    @torch.no_grad()
    def __call__(self, prompt: str, **_: Any) -> Any:
        embeds, _ = self.encode_prompt(prompt, "cpu", 1, False)
        self.scheduler.set_timesteps(1)
        latents = torch.randn(1, 4, 64, 72, generator=torch.Generator().manual_seed(1))
        noise = torch.zeros_like(latents)
        for top, bottom, left, right in reversed(self.get_views(512, 576)):
            view = latents[:, :, top:bottom, left:right]
            noise[:, :, top:bottom, left:right] += self.unet(view, 1, encoder_hidden_states=embeds).sample
        return (self.scheduler.step(noise, 1, latents).prev_sample,)


def test_views_that_are_not_where_they_are_said_to_be_are_refused() -> None:
    """The pipeline tells of its views; that they lie there is seen where they overlap."""
    pipe = sharing(pipeline("coarse"), Elsewhere)
    with trace(pipe) as recording:
        pipe(PROMPT)
    with pytest.raises(NothingRecorded, match="were not cut from the same latents, so their places are not known"):
        recording.heat_maps()


class OtherWindows(StableDiffusionPipeline):
    """Has a method of the same name that knows no panorama, and paints its picture in one piece."""

    def get_views(self, height: int, width: int, window_size: int = 64) -> list[tuple[int, int, int, int]]:
        return [(0, window_size, start, start + window_size) for start in (0, 8)]

    def __call__(self, *args: Any, **given: Any) -> Any:
        self.get_views(64, 72)
        return super().__call__(*args, **given)


def test_a_method_of_that_name_that_knows_no_panorama_is_left_alone() -> None:
    pipe = sharing(pipeline("small"), OtherWindows)
    with trace(pipe) as recording:
        paint(pipe)
    assert recording.failure is None and recording.heat_maps().words[2] == "house"


def test_what_is_not_read_of_views_is_told() -> None:
    """Concepts and output space leave the words alone; heads would need more room than there is."""
    pipe = panorama()
    options = {"height": 512, "width": 576, "num_inference_steps": 1, "output_type": "latent"}
    with trace(pipe, concepts=["sky"], output_space=True) as recording:
        paint(pipe, **options)
    assert recording.heat_maps().words[2] == "house" and recording.heat_maps().self_attention is None
    assert "several views" in str(recording.concept_failure) and "several views" in str(recording.output_failure)
    with trace(pipe, keep="heads") as recording:
        paint(pipe, **options)
    with pytest.raises(NothingRecorded, match="Heads are kept apart of whole pictures"):
        recording.heat_maps()
