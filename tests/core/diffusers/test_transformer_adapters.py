"""IP-Adapters of transformers: a layer attends to picture prompts apart, behind its attention to text and picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxIPAdapterAttnProcessor
from torch import Tensor, nn

from daam_core import trace
from daam_core.errors import NothingRecorded

from .pipeline_cases import CASES, Case, paint, worst_error

WIDTH = 16


class Passed(nn.Module):
    """Takes the place of what makes an adapter's tokens of a picture's embedding."""

    def __init__(self, adapters: int = 1) -> None:
        super().__init__()
        self.image_projection_layers = [None] * adapters

    def forward(self, embeds: Any, timestep: Tensor | None = None) -> Any:
        return embeds if timestep is None else (embeds, torch.full((len(embeds), WIDTH), 0.1))


def tokens(rows: int, number: int) -> Tensor:
    return torch.randn(rows, number, WIDTH, generator=torch.Generator().manual_seed(number))


def flux(adapters: tuple[int, ...]) -> tuple[Any, Case]:
    """Flux with adapters of so many tokens each."""
    pipe = CASES["flux"].make()
    torch.manual_seed(3)
    pipe.transformer.set_attn_processor(
        {
            name: FluxAttnProcessor()
            if "single" in name
            else FluxIPAdapterAttnProcessor(WIDTH, WIDTH, num_tokens=adapters, scale=[0.7] * len(adapters))
            for name in pipe.transformer.attn_processors
        }
    )
    pipe.transformer.encoder_hid_proj = Passed(len(adapters))
    embeds = [tokens(2, number) for number in adapters]
    return pipe, _with(CASES["flux"], embeds)


def stable_diffusion_3() -> tuple[Any, Case]:
    """With guidance its batch has the rows of both sides."""
    pipe = CASES["sd3"].make()
    torch.manual_seed(3)
    pipe.transformer.set_attn_processor(
        {
            name: SD3IPAdapterJointAttnProcessor2_0(WIDTH, WIDTH, head_dim=8, timesteps_emb_dim=WIDTH, scale=0.7)
            for name in pipe.transformer.attn_processors
        }
    )
    pipe.transformer.image_proj = Passed()
    return pipe, _with(CASES["sd3"], tokens(4, 5))


def _with(case: Case, embeds: Any) -> Case:
    return replace(case, options={**case.options, "joint_attention_kwargs": {"ip_adapter_image_embeds": embeds}})


MADE = {"flux": lambda: flux((4,)), "flux with two": lambda: flux((4, 7)), "sd3": stable_diffusion_3}


@pytest.mark.parametrize("name", MADE)
def test_the_words_of_a_picture_prompt_s_neighbour_are_read(name: str) -> None:
    """Both sides of two pictures against float64, and the picture is bit-identical: the recording stopped here."""
    pipe, case = MADE[name]()
    before = paint(pipe, case)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, case), before)
    assert recording.failure is None
    assert worst_error(pipe, case) < 1e-5


def test_a_processor_of_somebody_s_own_by_that_name_is_none_of_diffusers() -> None:
    """What it attends to behind the text nobody knows, so its second attention is refused."""
    pipe, case = flux((4,))
    for module in pipe.transformer.modules():
        if type(getattr(module, "processor", None)) is FluxIPAdapterAttnProcessor:
            module.processor.__class__ = type("OwnIPAdapter", (FluxIPAdapterAttnProcessor,), {"__module__": "own"})
    with trace(pipe) as recording:
        paint(pipe, case)
    with pytest.raises(NothingRecorded, match="has 24 queries on 4 keys"):
        recording.heat_maps()
