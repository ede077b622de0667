"""Layers of a UNet that call their projections by name, get something else from them than a tensor, or change precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from daam_core import trace
from daam_core.errors import NothingRecorded

from ..capture.attention_witness import Witness as Kernels
from ..models import PROMPT, paint, pipeline
from .unet_witness import Witness, assert_same


class Named:
    """An attention that gives its projections what they take by name."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(input=hidden_states), attn.to_k(input=context), attn.to_v(input=context)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("hooked", [False, True])
def test_projections_that_are_called_by_name_are_told_apart(hooked: bool) -> None:
    """Those of the picture's attention to itself were taken for text, and the recording was lost."""
    pipe = pipeline("small")
    pipe.unet.set_attn_processor(Named())
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    witness = Witness(pipe.unet, weights=True)
    if hooked:  # by somebody else
        for module in [m for name, m in pipe.unet.named_modules() if name.endswith(("to_q", "to_k"))]:
            module.register_forward_hook(lambda m, a, out: None)
    with trace(pipe) as recording:
        paint(pipe, num_inference_steps=4)
    maps = recording.heat_maps()
    assert maps.steps == 4 and maps.self_attention is not None
    assert_same(maps.sides["prompt"], witness.of(text))


class Pair(nn.Module):
    """A projection that gives out its bias apart, as those of models in several pieces do, from a forward on."""

    def __init__(self, inner: nn.Module, begins: Callable[[], bool]) -> None:
        super().__init__()
        self.inner, self.begins = inner, begins

    def forward(self, x: Tensor) -> Any:
        return (self.inner(x), None) if self.begins() else self.inner(x)


class Unpacking(Named):
    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        given = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x[0] if isinstance(x, tuple) else x for x in given)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("part", ["to_q", "to_k", "to_v"])
def test_a_projection_that_gives_no_tensor_costs_no_picture(first: int, part: str) -> None:
    """It broke off the pipeline's call: where it was only noted, from the third step on, and where a processor that is none of
    diffusers' is proved to attend with its own projections."""
    pipe, step = pipeline("small"), [0]
    pipe.unet.set_attn_processor(Unpacking())
    for attn in [m for name, m in pipe.unet.named_modules() if name.endswith("attn2")]:
        setattr(attn, part, Pair(getattr(attn, part), lambda: step[0] >= first))

    def count(_pipe: Any, number: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        step[0] = number + 1
        return given

    def picture() -> Tensor:
        step[0] = 0
        return paint(pipe, num_inference_steps=4, callback_on_step_end=count)

    before = picture()
    with trace(pipe, output_space=True) as recording:
        assert torch.equal(picture(), before)
    with pytest.raises(
        NothingRecorded, match=r"attn2 of UNet2DConditionModel (attended without|did not give) .* is Unpacking\."
    ):
        recording.heat_maps()


class Shared(Unpacking):
    """Every two heads of queries share one of keys."""

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Tensor:
        if encoder_hidden_states is None:
            return super().__call__(attn, hidden_states)
        d = attn.inner_dim // attn.heads
        given = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (x.unflatten(-1, (-1, d)).transpose(1, 2) for x in given)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        p = torch.softmax(q @ k.transpose(-1, -2) * attn.scale, -1)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_keys_of_fewer_heads_cost_no_picture() -> None:
    """The proof of such a processor broke off the pipeline's call, as its keys are no heads of the layer's."""
    pipe = pipeline("small")
    pipe.unet.set_attn_processor(Shared())
    for attn in [m for name, m in pipe.unet.named_modules() if name.endswith("attn2")]:
        width = attn.inner_dim // attn.heads
        attn.to_k, attn.to_v = (nn.Linear(attn.cross_attention_dim, width, bias=False) for _ in range(2))
    before = paint(pipe)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe), before)
    with pytest.raises(NothingRecorded):
        recording.heat_maps()


def test_a_run_whose_precision_changes_is_recorded_on() -> None:
    """Queries of another precision than those that are waiting ended the recording with an error that nobody had foreseen."""
    pipe, entered = pipeline("small"), []

    def half(_pipe: Any, number: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if number == 2:
            entered.append(torch.autocast("cpu", dtype=torch.bfloat16))
            entered[0].__enter__()
        return given

    try:
        with trace(pipe) as recording, Kernels() as witness:
            paint(pipe, num_inference_steps=6, callback_on_step_end=half)
    finally:
        for one in entered:
            one.__exit__(None, None, None)
    text = [i for i, (q, k, *_) in enumerate(witness.calls) if k.shape[2] == 77 != q.shape[2]]
    assert {witness.calls[i][0].dtype for i in text} == {torch.float32, torch.bfloat16}
    true: dict[int, Tensor] = {}
    for p in (witness.probabilities(i)[1].sum(0) for i in text):
        true[len(p)] = true.get(len(p), torch.zeros(())) + p
    assert recording.heat_maps().steps == 6
    assert_same(recording.heat_maps().sides["prompt"], true)
