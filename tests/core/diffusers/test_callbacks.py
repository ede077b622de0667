"""What a user does in a callback between two steps does not paint the picture: it is not counted, and loses nothing."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from daam_core import trace
from daam_core.errors import NothingRecorded
from daam_core.maps.heatmaps import HeatMaps

from ..models import PROMPT, pipeline, scheduler
from ..models import paint as paint_unet
from . import transformer_pipelines as made
from .pipeline_cases import CASES
from .pipeline_cases import paint as paint_transformer

Given = dict[str, Any]


def another_pipeline(pipe: Any, _given: Given) -> None:
    """A preview by another pipeline on the same UNet, of the same prompt."""
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    other = StableDiffusionImg2ImgPipeline(**{**parts, "scheduler": scheduler()}, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other(PROMPT, image=torch.rand(1, 3, 64, 64), strength=0.5, num_inference_steps=4)


def the_pipeline_itself(pipe: Any, _given: Given) -> None:
    own, pipe.scheduler = pipe.scheduler, scheduler()
    paint_unet(pipe, PROMPT, num_inference_steps=1)
    pipe.scheduler = own


def the_model(pipe: Any, given: Given) -> None:
    with torch.no_grad():
        pipe.unet(given["latents"], torch.tensor(500), encoder_hidden_states=given["prompt_embeds"][-1:])


class Callback:
    """An object that is called, as diffusers' own callbacks are."""

    def __init__(self, what: Callable[[Any, Given], None]) -> None:
        self.what = what

    @torch.no_grad()
    def __call__(self, pipe: Any, _step: int, _time: Any, given: Given) -> Given:
        self.what(pipe, given)
        return given


def _function(what: Callable[[Any, Given], None], pipe: Any, _step: int, _time: Any, given: Given) -> Given:
    what(pipe, given)
    return given


@pytest.mark.parametrize("what", [another_pipeline, the_pipeline_itself, the_model])
@pytest.mark.parametrize("form", [Callback, functools.partial(functools.partial, _function)])
def test_what_runs_in_a_callback_is_not_the_pictures(what: Any, form: Any) -> None:
    """It was added to the maps as further steps: up to 1.3 of the largest value off, and nobody said so."""
    pipe = pipeline("small")
    with trace(pipe) as alone:
        paint_unet(pipe)
    given = {"callback_on_step_end": form(what), "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    with trace(pipe) as recording:
        paint_unet(pipe, **given)
    _equal(recording.heat_maps(), alone.heat_maps())


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_the_same_of_transformers(name: str) -> None:
    case, given_last = CASES[name], {}
    pipe = case.make()
    pipe.transformer.register_forward_pre_hook(lambda _m, _a, kwargs: given_last.update(kwargs), with_kwargs=True)

    def callback(_pipe: Any, _step: int, _time: Any, given: Given) -> Given:
        with torch.no_grad():
            pipe.transformer(**{**given_last, "timestep": given_last["timestep"] / 2})
        return given

    with trace(pipe) as alone:
        paint_transformer(pipe, case)
    with trace(pipe) as recording:
        paint_transformer(pipe, case, callback_on_step_end=callback)
    _equal(recording.heat_maps(), alone.heat_maps())


def test_a_trace_inside_a_callback_records_a_call_with_that_callback() -> None:
    outer, inner = pipeline("small"), pipeline("small")
    found: list[HeatMaps] = []

    def callback(pipe: Any, _step: int, _time: Any, given: Given) -> Given:
        if pipe is outer and not found:
            with trace(inner) as recording:
                paint_unet(inner, callback_on_step_end=callback)
            found.append(recording.heat_maps())
        return given

    paint_unet(outer, callback_on_step_end=callback)
    assert found[0].steps == 2


def _equal(found: HeatMaps, wanted: HeatMaps) -> None:
    assert (found.steps, found.num_terms, found.words) == (wanted.steps, wanted.num_terms, wanted.words)
    assert torch.equal(found.heat_maps(), wanted.heat_maps())


def test_a_prompt_exchanged_for_a_text_that_nobody_encoded_is_refused() -> None:
    """The steps behind it were left out in silence, because the negative prompt beside it was still known."""
    pipe = pipeline("small")

    def louder(_pipe: Any, step: int, _time: Any, given: Given) -> Given:
        embeds = given["prompt_embeds"].clone()
        embeds[-1] *= 1.5
        return {**given, "prompt_embeds": embeds} if step == 1 else given

    given = {"callback_on_step_end": louder, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    with trace(pipe) as recording:
        paint_unet(pipe, num_inference_steps=4, **given)
    with pytest.raises(NothingRecorded, match="became another one that the pipeline did not encode"):
        recording.heat_maps()
    pipe = made.stable_diffusion_3()
    with trace(pipe) as recording:
        paint_transformer(pipe, CASES["sd3"], num_inference_steps=4, **given)
    with pytest.raises(NothingRecorded, match="none of those that the pipeline encoded"):
        recording.heat_maps()


OPTIONS: dict[str, Given] = {"words": {}, "concepts": {"concepts": ["sky"]}, "output": {"output_space": True}}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["unet", "pixart"])
def test_copies_made_in_a_callback_work_alone(kind: str, options: str) -> None:
    """Copying or writing a model failed there with output space, or took the whole recording along; an error in a callback
    ends the picture."""
    pipe = pipeline("small") if kind == "unet" else made.pixart()
    paint = paint_unet if kind == "unet" else functools.partial(paint_transformer, case=CASES[kind])
    model = pipe.unet if kind == "unet" else pipe.transformer
    copies: list[Any] = []
    calls: list[Any] = []
    sizes: list[int] = []
    model.register_forward_pre_hook(_Kept(calls), with_kwargs=True)

    def take(*_: Any) -> None:
        if copies:
            return
        copies.append(copy.deepcopy(model))
        torch.save(model, file := io.BytesIO())
        copies.append(torch.load(io.BytesIO(file.getvalue()), weights_only=False))
        copies.append(pickle.loads(written := pickle.dumps(model)))
        sizes.append(len(written))

    called = {"callback_on_step_end": _Taking(take)} if kind == "unet" else {"callback": take, "callback_steps": 1}
    with trace(pipe, **OPTIONS[options]) as recording:
        paint(pipe, **called)
    assert recording.failure is None and len(copies) == 3
    args, kwargs = calls[-1]
    with torch.no_grad():
        wanted = _first(model(*args, **kwargs))
        assert all(torch.equal(_first(one(*args, **kwargs)), wanted) for one in copies)
    assert sizes[0] < 1.2 * len(pickle.dumps(model)), "the recording went along"


class _Kept:
    """Keeps what a model is called with; a copy of it keeps nothing."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def __call__(self, _model: Any, args: Any, kwargs: Any) -> None:
        self.calls.append((args, kwargs))

    def __reduce__(self) -> Any:
        return _Kept, ([],)


class _Taking:
    def __init__(self, take: Callable[..., None]) -> None:
        self.take = take

    def __call__(self, _pipe: Any, _step: int, _time: Any, given: Given) -> Given:
        self.take()
        return given


def _first(output: Any) -> Tensor:
    return torch.as_tensor(output[0])


def test_an_error_of_a_recordings_own_never_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails while a call is begun or finished."""
    pipe = pipeline("small")
    untouched = paint_unet(pipe)
    for name in ("_record", "_size", "_begin_scheduler"):
        with monkeypatch.context() as patch:
            recording = trace(pipe)
            patch.setattr(recording, name, lambda *_: 1 / 0)
            with recording:
                assert torch.equal(paint_unet(pipe), untouched), name
    assert "forward" not in vars(pipe.unet)


def overwritten(_pipe: Any, step: int, _time: Any, given: Given) -> Given:
    """Another text, written into the tensors that the model is given."""
    embeds = given["prompt_embeds"]
    for row in embeds if isinstance(embeds, (list, tuple)) else [embeds[-1]]:
        if step == 0:
            row.mul_(-1.5)
    return given


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["unet", "unet with guidance", "flux", "z-image", "sd3"])
def test_a_text_that_is_written_into_is_another_text(name: str, mode: Callable[[], Any]) -> None:
    """The recording held the pipeline's own tensors, so it took what was written into them for the prompt: its words had the
    map of another text. In inference mode nobody counts what is written into a tensor."""
    options = {"num_inference_steps": 3, "callback_on_step_end": overwritten}
    options["callback_on_step_end_tensor_inputs"] = ["prompt_embeds"]
    if name.startswith("unet"):
        pipe = pipeline("small")
        paint = functools.partial(paint_unet, pipe, guidance_scale=5.0 if "with" in name else 1.0, **options)
    else:
        pipe = CASES[name].make()
        paint = functools.partial(paint_transformer, pipe, CASES[name], "two cats", None, **{**CASES[name].off, **options})
    with mode():
        before = paint()
        with trace(pipe) as recording:
            assert torch.equal(paint(), before)
    with pytest.raises(NothingRecorded, match="encode"):
        recording.heat_maps()


def test_embeddings_that_are_written_into_before_the_call_are_nobodys() -> None:
    pipe = pipeline("small")
    with trace(pipe) as recording:
        embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True)
        same = embeds.clone()
        paint_unet(pipe, None, prompt_embeds=same, negative_prompt_embeds=negative)
        embeds.mul_(-1.5)
        paint_unet(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert recording.heat_maps(generation=0).words[:3] == ["a", "red", "house"]
    assert recording.heat_maps(generation=1).words[:3] == ["0", "1", "2"]


def resized(change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """A callback that changes the latents behind the first of three steps."""

    def callback(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": change(given["latents"])} if step == 0 else given

    return {"callback_on_step_end": callback, "num_inference_steps": 3, "output_type": "latent"}


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_latents_that_become_a_part_of_themselves_are_refused(kind: str) -> None:
    """Places of the whole lay over those of the part, each map drawn out over the other's picture; larger ones are read."""

    def painted(change: Callable[[Tensor], Tensor]) -> Tensor:
        if kind == "unet":
            return paint_unet(pipe, **resized(change))
        return paint_transformer(pipe, CASES["sd3"], **resized(change))

    def cut(latents: Tensor) -> Tensor:
        return latents[..., : latents.shape[-1] // 2].contiguous()

    def larger(latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents, scale_factor=2)

    pipe = pipeline("small") if kind == "unet" else CASES["sd3"].make()
    before = painted(cut)
    with trace(pipe) as recording:
        assert torch.equal(painted(cut), before)
    assert recording.failure is not None and "which are other proportions" in recording.failure
    with trace(pipe) as recording:
        painted(larger)
    assert recording.failure is None and recording.heat_maps().steps == 3
