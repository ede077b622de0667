"""A trace hears its own pipeline, in its own thread, during its own call; what is none of that is told in a sentence."""

from __future__ import annotations

import copy
import io
import threading
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    TextToVideoZeroPipeline,
)

from daam_core import trace
from daam_core.errors import NothingRecorded, UnsupportedModel

from ..models import PROMPT, paint, pipeline, scheduler, tokenizer, unet
from .unet_witness import Witness, assert_same


def sharing(pipe: Any, cls: Any = StableDiffusionPipeline, **more: Any) -> Any:
    """Another pipeline on the same UNet."""
    parts = {k: v for k, v in pipe.components.items() if k != "image_encoder"} | {"scheduler": scheduler()}
    other = cls(**parts, **more, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def test_two_pipelines_on_one_unet_in_two_threads() -> None:
    """One is traced; the other runs a step of its own inside each of the first one's forwards. 0.1.0 doubled the steps."""
    pipe = pipeline("small")
    other = sharing(pipe)
    with trace(pipe) as alone:
        before = paint(pipe)
    layer = pipe.unet.get_submodule(next(name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")))
    inside = threading.local()

    def meanwhile(*_: Any) -> None:
        if getattr(inside, "other", False):
            return

        def run() -> None:
            inside.other = True
            paint(other, "a star", num_inference_steps=1, height=96)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    handle = layer.to_q.register_forward_hook(meanwhile)  # between a layer's queries and its keys
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe), before)
    handle.remove()
    assert (recording.num_generations, recording.heat_maps().steps) == (1, 2)
    assert torch.equal(recording.heat_maps().heat_maps(), alone.heat_maps().heat_maps())
    assert recording.heat_maps().num_terms == alone.heat_maps().num_terms


def test_a_pipeline_stopped_by_an_exception_leaves_nothing_to_the_next() -> None:
    """A forward is left in the middle of a layer; then another pipeline runs on the same UNet, and then the first again."""
    pipe = pipeline("small")
    other = sharing(pipe)
    layer = pipe.unet.get_submodule(next(name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")))
    with trace(pipe) as alone:
        paint(pipe)

    def stop(*_: Any) -> None:
        raise KeyError("stopped")

    with trace(pipe) as recording:
        handle = layer.to_v.register_forward_hook(stop)
        with pytest.raises(KeyError):
            paint(pipe)
        handle.remove()
        paint(other, "a star")
        assert recording.num_generations == 0
        paint(pipe)
    maps = recording.heat_maps()
    assert (recording.num_generations, maps.steps, maps.words[2]) == (1, 2, "house")
    assert torch.equal(maps.heat_maps(), alone.heat_maps().heat_maps())


class TwoCalls(StableDiffusionPipeline):
    """Guidance as two forwards of the UNet in each step, the negative prompt first."""

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 2, **_: Any) -> Any:
        embeds, negative = self.encode_prompt(prompt, "cpu", 1, True)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            without = self.unet(latents, t, encoder_hidden_states=negative).sample
            noise = without + 5 * (self.unet(latents, t, encoder_hidden_states=embeds).sample - without)
            latents = self.scheduler.step(noise, t, latents).prev_sample
        return (latents,)


def test_guidance_in_two_calls_is_one_step() -> None:
    pipe = sharing(pipeline("small"), TwoCalls)
    text, negative = (embeds[0] for embeds in pipe.encode_prompt(PROMPT, "cpu", 1, True))
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        pipe(PROMPT)
    maps = recording.heat_maps()
    assert (len(witness.forwards), maps.steps, maps.size) == (4, 2, (64, 64))
    assert_same(maps.sides["prompt"], witness.of(text))
    assert maps.negative is not None
    start = witness.of(negative)[64][:, 0].float()  # the negative prompt is empty: its maps are those of start and end
    assert torch.allclose(maps.sides["negative"].sums[8, 8][0].flatten(), start, rtol=1e-5)


class Nudging(TwoCalls):
    """Moves the latents by a gradient through the UNet before each step, as Attend-and-Excite does."""

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 2, **_: Any) -> Any:
        embeds, negative = self.encode_prompt(prompt, "cpu", 1, True)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            with torch.enable_grad():
                moved = latents.clone().detach().requires_grad_(True)
                loss = self.unet(moved, t, encoder_hidden_states=embeds).sample.square().mean()
                latents = latents - 20 * torch.autograd.grad(loss, [moved])[0]
            noise = self.unet(torch.cat([latents] * 2), t, encoder_hidden_states=torch.cat([negative, embeds])).sample
            latents = self.scheduler.step(noise.chunk(2)[1], t, latents).prev_sample
        return (latents,)


def test_forwards_for_a_gradient_are_not_the_ones_that_paint() -> None:
    pipe = sharing(pipeline("small"), Nudging)
    text = pipe.encode_prompt(PROMPT, "cpu", 1, True)[0][0]
    witness = Witness(pipe.unet)
    before = pipe(PROMPT)[0]
    witness.forwards.clear()
    with trace(pipe) as recording:
        assert torch.equal(pipe(PROMPT)[0], before)
    assert [len(forward.texts) for forward in witness.forwards] == [1, 2, 1, 2]
    assert recording.heat_maps().steps == 2
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text, slice(1, None, 2)))


def test_perturbed_rows_are_nobodys() -> None:
    """PAG: [negative, prompt, prompt with perturbed attention]; the last two have the same text."""
    pipe = sharing(pipeline("small"), StableDiffusionPAGPipeline, pag_applied_layers=["mid"])
    text = pipe.encode_prompt(PROMPT, "cpu", 1, True)[0][0]
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe, pag_scale=3.0)
    assert [len(forward.texts) for forward in witness.forwards] == [3, 3]
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


class Climbing(TwoCalls):
    """Every forward is made for a gradient."""

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 2, **_: Any) -> Any:
        embeds, _negative = self.encode_prompt(prompt, "cpu", 1, False)
        latents = torch.randn(1, 4, 8, 8)
        with torch.enable_grad():
            moved = latents.requires_grad_(True)
            loss = self.unet(moved, 1, encoder_hidden_states=embeds).sample.square().mean()
            return ((moved - torch.autograd.grad(loss, [moved])[0]).detach(),)


def test_a_pipeline_of_gradients_alone_is_told() -> None:
    pipe = sharing(pipeline("small"), Climbing)
    with trace(pipe) as recording:
        pipe(PROMPT)
    with pytest.raises(NothingRecorded, match="Climbing asked its UNet for gradients of the latents alone"):
        recording.heat_maps()


class Trained(TwoCalls):
    """Steps through which a gradient flows back, as where a reward of the picture trains the UNet."""

    def __call__(self, prompt: str, num_inference_steps: int = 3, **_: Any) -> Any:
        embeds, _negative = self.encode_prompt(prompt, "cpu", 1, False)
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for t in self.scheduler.timesteps:
            noise = self.unet(latents, t, encoder_hidden_states=embeds).sample
            latents = self.scheduler.step(noise, t, latents).prev_sample
        return (latents,)


def test_steps_that_only_forwards_for_a_gradient_painted_are_told() -> None:
    """Maps of the first step alone would pass for those of all."""
    pipe = sharing(pipeline("small"), Trained)

    def gradients() -> list[torch.Tensor]:
        pipe.unet.zero_grad()
        pipe(PROMPT)[0].square().mean().backward()
        return [weight.grad.clone() for weight in pipe.unet.parameters() if weight.grad is not None]

    before = gradients()
    with trace(pipe) as recording:
        during = gradients()
        with pytest.raises(NothingRecorded, match=r"made for a gradient of its latents, .* paint inside `torch\.no_grad\(\)`"):
            recording.heat_maps()
        with torch.no_grad():
            pipe(PROMPT)
    assert all(torch.equal(x, y) for x, y in zip(before, during, strict=True))
    assert recording.heat_maps().steps == 3


class Views(TwoCalls):
    """Paints a picture that is wider than the UNet's in two views, as panoramas do."""

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 2, **_: Any) -> Any:
        embeds, _ = self.encode_prompt(prompt, "cpu", 1, False)
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.randn(1, 4, 8, 9, generator=torch.Generator().manual_seed(1))
        for t in self.scheduler.timesteps:
            noise = torch.zeros_like(latents)
            for left in (0, 1):
                noise[..., left : left + 8] += self.unet(latents[..., left : left + 8], t, encoder_hidden_states=embeds).sample
            latents = self.scheduler.step(noise, t, latents).prev_sample
        return (latents,)


def test_a_picture_in_several_views_is_refused() -> None:
    pipe = sharing(pipeline("small"), Views)
    with trace(pipe) as recording:
        pipe(PROMPT)
    with pytest.raises(NothingRecorded, match=r"painted in several views: the model was shown 8 x 8 latents of 9 x 8"):
        recording.heat_maps()


class Reference(TwoCalls):
    """Shows the UNet a reference picture with the prompt in each step, as reference-only pipelines do."""

    first = True
    time: torch.Tensor | None = None  # at which the reference is shown; at the picture's where there is none

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 2, **_: Any) -> Any:
        embeds, _ = self.encode_prompt(prompt, "cpu", 1, False)
        self.scheduler.set_timesteps(num_inference_steps)
        reference, latents = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for t in self.scheduler.timesteps:
            shown = [self.scheduler.scale_model_input(x, t) for x in (latents, reference)]
            times = [t, t if self.time is None else self.time]
            pairs = list(zip(shown, times, strict=True))[:: -1 if self.first else 1]
            noises = [self.unet(x, when, encoder_hidden_states=embeds).sample for x, when in pairs]
            latents = self.scheduler.step(sum(noises), t, latents).prev_sample
        return (latents,)


def test_a_reference_picture_that_is_shown_first_is_refused() -> None:
    """The maps were those of the reference picture. Shown behind the one that is painted, it is left out."""
    pipe = sharing(pipeline("small"), Reference)
    with trace(pipe) as recording:
        during = pipe(PROMPT)[0]
    assert torch.equal(during, pipe(PROMPT)[0])
    with pytest.raises(NothingRecorded, match="shown several pictures with the same text, and the first is not the one that"):
        recording.heat_maps()
    pipe.time = torch.tensor(0)
    for first in (True, False):
        pipe.first = first
        with trace(pipe) as recording:
            pipe(PROMPT)
        with pytest.raises(NothingRecorded, match="was shown pictures at several times with the same text"):
            recording.heat_maps()
    pipe.time = None
    pipe.scheduler = diffusers.EulerDiscreteScheduler()
    with trace(pipe) as recording:
        pipe(PROMPT)
    assert recording.failure is None and recording.heat_maps().steps == 2


class ReferenceInBatch(TwoCalls):
    """Shows the UNet a reference picture with the prompt in the same batch, ahead of the picture or behind it."""

    first = True

    @torch.no_grad()
    def __call__(self, prompt: str, num_inference_steps: int = 1, **_: Any) -> Any:
        embeds, _ = self.encode_prompt(prompt, "cpu", 1, False)
        self.scheduler.set_timesteps(num_inference_steps)
        (t,) = self.scheduler.timesteps
        reference, latents = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        rows = [reference, latents] if self.first else [latents, reference]
        noise = self.unet(torch.cat(rows), t, encoder_hidden_states=torch.cat([embeds, embeds])).sample
        return (self.scheduler.step(noise.sum(0, keepdim=True), t, latents).prev_sample,)


def test_a_reference_picture_ahead_of_the_picture_in_its_batch_is_refused() -> None:
    """The maps were those of the reference picture."""
    pipe = sharing(pipeline("small"), ReferenceInBatch)
    with trace(pipe) as recording:
        pipe(PROMPT)
        assert "shown several pictures with the same text" in (recording.failure or "")
        pipe.first = False
        pipe(PROMPT)
    assert recording.failure is None


def test_frames_of_one_prompt_are_not_pictures_of_one() -> None:
    """Text2Video-Zero runs its frames as rows of one prompt."""
    pipe = sharing(pipeline("small"), TextToVideoZeroPipeline)
    with trace(pipe) as recording:
        pipe(PROMPT, num_inference_steps=3, height=64, width=64, video_length=2, t0=1, t1=2)
    with pytest.raises(NothingRecorded, match="TextToVideoZeroPipeline made 2 pictures of 1 prompts"):
        recording.heat_maps()


def test_copies_made_inside_a_trace_run_by_themselves() -> None:
    """`copy.deepcopy` and `torch.save` of the UNet: 0.1.0's copy kept dead hooks, or could not be written."""
    pipe = pipeline("small")
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    copies: list[Any] = []

    def take(given_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        copies.append(copy.deepcopy(given_pipe.unet))
        torch.save(given_pipe.unet, file := io.BytesIO())
        copies.append(torch.load(io.BytesIO(file.getvalue()), weights_only=False))
        return given

    with trace(pipe) as recording:
        copies.append(copy.deepcopy(pipe.unet))
        paint(pipe, callback_on_step_end=take)
    assert recording.heat_maps().steps == 2
    for one in copies:
        assert torch.equal(one(x, 1, text).sample, pipe.unet(x, 1, text).sample)
        for module in one.modules():
            forward = vars(module).get("forward")
            assert forward is None or forward.__self__._module is module


def loop(pipe: Any, embeds: torch.Tensor) -> None:
    with torch.no_grad():
        with_gradients(pipe, embeds)


def with_gradients(pipe: Any, embeds: torch.Tensor) -> None:
    """Two steps without a call of the pipeline."""
    pipe.scheduler.set_timesteps(2)
    latents = torch.randn(len(embeds), 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for t in pipe.scheduler.timesteps:
        latents = pipe.scheduler.step(pipe.unet(latents, t, encoder_hidden_states=embeds).sample, t, latents).prev_sample


def test_a_loop_of_ones_own_is_read_where_its_prompt_was_encoded_inside_the_trace() -> None:
    """Each loop is a generation; a pipeline that is called afterwards is another, and other texts are left alone."""
    pipe = pipeline("small")
    other = sharing(pipe)
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt="a star")
        paint(other, "a tree", guidance_scale=1.0)
        loop(pipe, torch.cat([negative, embeds]))
        second, _ = pipe.encode_prompt("a blue moon", "cpu", 1, False)
        loop(pipe, second)
        maps = recording.heat_maps()
        paint(pipe, "a star")
    assert recording.num_generations == 3 and recording.heat_maps().words == ["a", "star"]
    first = recording.heat_maps(generation=0)
    assert (first.words[2], first.steps, first.size) == ("house", 2, (64, 64))
    assert_same(first.sides["prompt"], witness.of(embeds[0]))
    assert_same(first.sides["negative"], witness.of(negative[0], slice(2, 4)))
    assert maps.words == ["a", "blue", "moon"]
    with trace(pipe) as graph:
        with_gradients(pipe, pipe.encode_prompt("a blue moon", "cpu", 1, False)[0])
    torch.testing.assert_close(graph.heat_maps().heat_maps(), maps.heat_maps())
    with trace(pipe) as recording:
        texts = [pipe.encode_prompt(text, "cpu", 1, False)[0] for text in (PROMPT, "a moon")]
        loop(pipe, torch.cat(texts))
    with pytest.raises(NothingRecorded, match="several texts at once that were all encoded as prompts"):
        recording.heat_maps()


def test_what_is_no_call_of_the_pipeline_is_told() -> None:
    """0.1.0 said "call the pipeline inside `with trace(pipe)`" when that was done, or gave the first call's maps."""
    pipe = pipeline("small")
    embeds = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]
    with trace(pipe) as recording:
        loop(pipe, embeds)
    with pytest.raises(NothingRecorded, match="2 sampling steps ran inside the trace, but not in a call of StableDiffusionP"):
        recording.heat_maps()


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_a_scheduler_that_is_exchanged_inside_the_trace_ends_its_steps(name: str) -> None:
    """These look at one timestep twice: the second look was taken for a repetition of the first, and left out."""
    pipe = pipeline("small")
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    with trace(pipe) as recording:
        paint(pipe)
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
        witness = Witness(pipe.unet)
        paint(pipe, num_inference_steps=3)
    assert len(witness.forwards) == 5 == recording.heat_maps().steps
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_concepts_of_a_loop_that_is_made_for_gradients_keep_no_graph() -> None:
    pipe = pipeline("small")
    with trace(pipe, concepts=["sky"]) as recording, torch.enable_grad():
        embeds = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]
        with_gradients(pipe, embeds)
    assert recording.heat_maps().concepts == ["sky"] and embeds.requires_grad
    assert not vars(recording)["_encoded_concepts"].states.requires_grad


def test_an_exchanged_unet_is_read_from_the_next_call_on_and_told_in_the_middle_of_one() -> None:
    pipe = pipeline("small")
    torch.manual_seed(5)
    second = unet("small")

    def exchange(given_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        given_pipe.unet = first
        return given

    first = pipe.unet
    with trace(pipe) as recording:
        paint(pipe)
        pipe.unet = second
        text, witness = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0], Witness(second)
        paint(pipe)
        assert_same(recording.heat_maps().sides["prompt"], witness.of(text))
        paint(pipe, callback_on_step_end=exchange)
    assert recording.num_generations == 3
    with pytest.raises(NothingRecorded, match=r"`pipe\.unet` was exchanged for another model while the pipeline ran"):
        recording.heat_maps()


def test_models_and_pipelines_that_cannot_be_read_are_named_before_anything_runs() -> None:
    from diffusers import MarigoldDepthPipeline

    pipe = pipeline("small")
    with pytest.raises(UnsupportedModel, match="UNet2DConditionModel is a model: give the pipeline that it is part of"):
        trace(pipe.unet)
    depth = MarigoldDepthPipeline(pipe.unet, pipe.vae, scheduler(), pipe.text_encoder, tokenizer())
    with pytest.raises(UnsupportedModel, match="MarigoldDepthPipeline is given no prompt"):
        trace(depth)


def test_a_call_without_a_step_is_told() -> None:
    pipe = sharing(pipeline("small"), StableDiffusionImg2ImgPipeline)
    with trace(pipe) as recording, pytest.raises(ValueError, match="strength"):
        pipe(PROMPT, image=torch.rand(1, 3, 64, 64), strength=2.0)
    with pytest.raises(NothingRecorded, match="it ended before its first step"):
        recording.heat_maps()
