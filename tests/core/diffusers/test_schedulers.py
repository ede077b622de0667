"""Steps as schedulers of every kind take them: each look of the model is a step, at the time that the model was given."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KarrasVeScheduler,
    PNDMScheduler,
)

from daam_core import trace
from daam_core.diffusers.scheduler_steps import timestep_of
from daam_core.errors import NothingRecorded

from ..models import PROMPT, paint, pipeline
from . import video_pipelines as made
from .pipeline_cases import CASES
from .pipeline_cases import paint as paint_transformer
from .unet_witness import Witness, assert_same

LOOKS = {
    # Looks of the model for 4 steps: solvers of second order look twice at all but the last one, PNDM twice at one.
    "DDPMScheduler": 4, "DPMSolverMultistepScheduler": 4, "DPMSolverSinglestepScheduler": 4, "UniPCMultistepScheduler": 4,
    "EulerAncestralDiscreteScheduler": 4, "LMSDiscreteScheduler": 4, "DEISMultistepScheduler": 4, "SASolverScheduler": 4,
    "LCMScheduler": 4, "TCDScheduler": 4, "DDIMInverseScheduler": 4, "EDMEulerScheduler": 4, "PNDMScheduler": 5,
    "HeunDiscreteScheduler": 7, "KDPM2DiscreteScheduler": 7, "KDPM2AncestralDiscreteScheduler": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_every_look_of_the_model_is_a_step_at_its_own_time(name: str) -> None:
    pipe, kind = pipeline("small"), getattr(diffusers, name)
    given: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 4.0}

    def run() -> torch.Tensor:
        # A new one: of some, something is left of the run before. PNDM's first steps as Stable Diffusion has them.
        more = {"skip_prk_steps": True} if kind is PNDMScheduler else {}
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **more)
        torch.manual_seed(2)
        return paint(pipe, **given)

    before = run()
    with trace(pipe, keep="steps") as recording:
        during = run()
    assert recording.failure is None and torch.equal(during, before) and before.isfinite().all()
    maps, text = recording.heat_maps(), pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    times: list[float] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: times.append(float(args[1])))
    witness = Witness(pipe.unet)
    run()
    assert maps.steps == len(witness.forwards) == LOOKS[name] and maps.timesteps == pytest.approx(times)
    assert_same(maps.positive, witness.of(text))
    apart = [by_step(witness, maps, text, step) for step in range(maps.steps)]
    for step, true in enumerate(apart):
        one = maps.select(steps=[step], grids=[maps.grid])["green"]
        errors = [float((one - other).abs().max() / true.max()) for other in apart]
        assert errors.index(min(errors)) == step and errors[step] < 1e-3  # kept in float16


def by_step(witness: Witness, maps: Any, text: torch.Tensor, step: int) -> torch.Tensor:
    """float64 `[h, w]`: what attended to "green" in one look of the model, at the maps' own grid."""
    (column,) = (token.column for token in maps.prompt.tokens if token.text == "green")
    return witness.of(text, slice(step, step + 1))[maps.grid[0] * maps.grid[1]][:, column].view(maps.grid)


def test_a_transformer_s_solver_of_second_order() -> None:
    """Flow matching by Heun's method: each step but the last looks twice, and each look is one."""
    case = CASES["sd3"]
    pipe = case.make()
    pipe.scheduler = FlowMatchHeunDiscreteScheduler.from_config(pipe.scheduler.config)
    before = paint_transformer(pipe, case, num_inference_steps=3)
    with trace(pipe, keep="steps") as recording:
        during = paint_transformer(pipe, case, num_inference_steps=3)
    assert recording.failure is None and torch.equal(during, before)
    maps = recording.heat_maps()
    assert maps.steps == 5 and maps.timesteps == pytest.approx(list(map(float, pipe.scheduler.timesteps)))


def test_the_time_of_a_step_is_told_by_its_name() -> None:
    """CogVideoX's own solver is given its last prediction where others are given the time: that is no time."""
    pipe = made.cog_video_x()
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    with trace(pipe) as recording:
        pipe(
            PROMPT, num_inference_steps=3, height=64, width=96, num_frames=9, guidance_scale=1.0, max_sequence_length=20,
            output_type="latent", generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
    assert recording.failure is None
    assert recording.heat_maps().timesteps == tuple(map(float, pipe.scheduler.timesteps)) and len(pipe.scheduler.timesteps) == 3


def test_a_scheduler_that_is_given_no_time_has_the_model_s() -> None:
    assert timestep_of(KarrasVeScheduler, ("output", 0.5, 0.25, "sample"), {}) is None
    assert timestep_of(PNDMScheduler, ("output", 7, "sample"), {}) == 7
    assert timestep_of(CogVideoXDPMScheduler, ("output", "old", 7, 3, "sample"), {}) == 7
    assert timestep_of(CogVideoXDPMScheduler, ("output",), {"timestep": 7}) == 7 and timestep_of(PNDMScheduler, (), {}) is None


class PassesOn:
    """A scheduler inside another object."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_wrapper_that_passes_steps_on_is_seen_through() -> None:
    """Heun's second look at one time is a step of its own, and counted, whoever passes it on."""
    pipe = pipeline("small")
    pipe.scheduler = PassesOn(HeunDiscreteScheduler.from_config(pipe.scheduler.config))
    before = paint(pipe, num_inference_steps=3)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, num_inference_steps=3), before)
    maps, witness = recording.heat_maps(), Witness(pipe.unet)
    paint(pipe, num_inference_steps=3)
    assert maps.steps == len(witness.forwards) == 5
    assert_same(maps.positive, witness.of(pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]))


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_a_second_look_behind_a_step_that_nobody_sees_is_refused(kind: str) -> None:
    """A function that stands on the scheduler in place of `step`: half of Heun's looks would be left out without a word. Those
    of a scheduler that looks once are told by their times."""
    pipe, case = (pipeline("small"), None) if kind == "unet" else (CASES["sd3"].make(), CASES["sd3"])
    solvers: tuple[Any, ...] = (HeunDiscreteScheduler, DDIMScheduler)
    if case is not None:
        solvers = FlowMatchHeunDiscreteScheduler, FlowMatchEulerDiscreteScheduler
    for solver, failure in zip(solvers, ("whether a step lay between is not known", None), strict=True):
        pipe.scheduler = solver.from_config(pipe.scheduler.config)
        own = pipe.scheduler.step
        pipe.scheduler.step = functools.partial(lambda below, *args, **kwargs: below(*args, **kwargs), own)

        def run() -> torch.Tensor:
            if case is None:
                return paint(pipe, num_inference_steps=3)
            return paint_transformer(pipe, case, num_inference_steps=3)

        before = run()
        with trace(pipe) as recording:
            assert torch.equal(run(), before)
        assert recording.failure is None if failure is None else failure in str(recording.failure)
        if failure is None:
            assert recording.heat_maps().steps == 3


@pytest.mark.parametrize("solver", [HeunDiscreteScheduler, EulerDiscreteScheduler])
def test_a_loop_with_a_scheduler_of_its_own(solver: Any) -> None:
    """A sampling loop of one's own whose scheduler is not the pipeline's: steps are told by their times, or nothing is."""
    pipe = pipeline("small")
    own = solver.from_config(pipe.scheduler.config)
    with torch.no_grad(), trace(pipe) as recording:
        embeds = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]
        own.set_timesteps(3)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * own.init_noise_sigma
        for t in own.timesteps:
            answer = pipe.unet(own.scale_model_input(latents, t), t, encoder_hidden_states=embeds).sample
            latents = own.step(answer, t, latents).prev_sample
    if solver is EulerDiscreteScheduler:
        assert recording.heat_maps().steps == 3
    else:
        with pytest.raises(NothingRecorded, match="whether a step lay between is not known"):
            recording.heat_maps()
