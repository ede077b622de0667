"""What becomes of a UNet's attention layers while it paints: other processors, fused projections, caches, another `forward`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core import trace
from daam_core.errors import NothingRecorded

from ..models import paint, pipeline
from .test_unet_layers import Own, Skipping, text_of
from .unet_witness import Witness, assert_same

STEPS = 5


def reweighted(p: Tensor) -> Tensor:
    return torch.cat([p[:, :, :, :3] * 4, p[:, :, :, 3:]], -1)


def text_layers(pipe: Any) -> list[Any]:
    return [module for name, module in pipe.unet.named_modules() if name.endswith("attn2")]


def behind(step: int, change: Callable[[Any], object]) -> Any:
    """A callback that changes the pipeline behind a step."""

    def on_step_end(pipe: Any, number: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if number == step:
            change(pipe)
        return given

    return on_step_end


@pytest.mark.parametrize("step", [0, STEPS - 2])
@pytest.mark.parametrize("processor", [Skipping(), Own(change=reweighted)])
def test_a_processor_that_is_exchanged_is_proved_in_the_next_step_whichever_it_is(processor: Any, step: int) -> None:
    """Ahead of the last step, too; and one that attends with its own queries and keys, and changes what they make."""
    pipe = pipeline("small")
    exchange = behind(step, lambda pipe: text_layers(pipe)[1].set_processor(processor))
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=STEPS, callback_on_step_end=exchange)
    with pytest.raises(NothingRecorded, match=f"attn2 of UNet2DConditionModel .* its processor is {type(processor).__name__}"):
        recording.heat_maps()


@pytest.mark.parametrize("step", [0, STEPS - 2])
def test_a_processor_that_is_exchanged_for_an_honest_one_is_read(step: int) -> None:
    pipe = pipeline("small")
    text, witness = text_of(pipe), Witness(pipe.unet)
    exchange = behind(step, lambda pipe: pipe.unet.set_attn_processor(Own(keys_first=True)))
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=STEPS, callback_on_step_end=exchange)
    assert recording.heat_maps().steps == STEPS
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


@pytest.mark.parametrize("step", [0, STEPS - 2])
def test_projections_that_are_fused_between_two_steps_are_read(step: int) -> None:
    pipe = pipeline("small")
    text, witness = text_of(pipe), Witness(pipe.unet, weights=True)
    options: dict[str, Any] = {"num_inference_steps": STEPS}
    options["callback_on_step_end"] = behind(step, lambda pipe: pipe.unet.fuse_qkv_projections())
    with trace(pipe) as recording:
        during = paint(pipe, **options)
    assert recording.heat_maps().steps == STEPS
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))
    assert torch.equal(paint(pipeline("small"), **options), during)


@pytest.mark.parametrize("change", [None, reweighted])
def test_a_forward_in_the_place_of_a_layers_own_is_proved(change: Any) -> None:
    """Prompt-to-prompt's controllers stand there, and change probabilities; the layer's processor is diffusers' own all the
    while, and does not run."""
    pipe = pipeline("small")
    attend = Own() if change is None else Own(change=change)
    for layer in text_layers(pipe):
        layer.forward = lambda x, encoder_hidden_states=None, layer=layer, **_: attend(layer, x, encoder_hidden_states)
    text, witness = text_of(pipe), Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe)
    if change is not None:
        with pytest.raises(NothingRecorded, match=r"its `forward` was replaced by test_a_forward.*lambda.*Take that off"):
            recording.heat_maps()
    else:
        assert_same(recording.heat_maps().sides["prompt"], witness.of(text))


def test_a_cache_that_answers_for_layers_means_fewer_terms_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from diffusers import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast

    pipe = pipeline("small")
    config = PyramidAttentionBroadcastConfig(
        cross_attention_block_skip_range=3, cross_attention_timestep_skip_range=(-1, 10**4),
        current_timestep_callback=lambda: 500, cross_attention_block_identifiers=("blocks",),
    )  # fmt: skip
    apply_pyramid_attention_broadcast(pipe.unet, config)
    text, witness = text_of(pipe), Witness(pipe.unet)
    with caplog.at_level(logging.WARNING, "daam_lens"), trace(pipe) as recording:
        during = paint(pipe, num_inference_steps=7)
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))
    assert recording.failure is None
    assert sum("sums of fewer terms" in record.message for record in caplog.records) == 1
    again = pipeline("small")
    apply_pyramid_attention_broadcast(again.unet, config)
    assert torch.equal(paint(again, num_inference_steps=7), during)
