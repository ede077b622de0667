"""What people do to a transformer before they paint with it, on a pipeline of each kind of call: joint attention through
diffusers' dispatch (Flux), through PyTorch (Stable Diffusion 3), and cross-attention (PixArt, Wan)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import Tensor, nn

from daam_core import trace

from .pipeline_cases import CASES, Case, paint, worst_error
from .video_pipelines import cog_video_x

KINDS = ("flux", "sd3", "pixart")


@pytest.fixture(params=KINDS)
def case(request: Any) -> Case:
    return CASES[request.param]


def check(pipe: Any, case: Case, wanted: Any = None, error: float = 1e-5) -> None:
    """The picture is untouched, the words are there, and the maps are `wanted`."""
    before = paint(pipe, case)
    with trace(pipe) as recording:
        during = paint(pipe, case)
    assert recording.failure is None
    assert torch.equal(during, before)
    maps = recording.heat_maps()
    assert maps.words == ["a", "red", "house", "and", "a#2", "green", "tree"]
    if wanted is not None:
        assert (maps.heat_maps() - wanted).abs().max() / maps.num_terms[4, 6] < error


def plain(case: Case) -> Any:
    """The maps of the pipeline as it is."""
    pipe = case.make()
    with trace(pipe) as recording:
        paint(pipe, case)
    return recording.heat_maps().heat_maps()


def test_lora(case: Case) -> None:
    """Keys and queries come with it."""
    from peft import LoraConfig, inject_adapter_in_model

    pipe, wanted = case.make(), plain(case)
    torch.manual_seed(3)
    lora = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_q", "to_k", "add_k_proj"])
    inject_adapter_in_model(lora, pipe.transformer)
    check(pipe, case)
    assert worst_error(pipe, case) < 1e-5
    with trace(pipe) as recording:
        paint(pipe, case)
    assert not torch.allclose(recording.heat_maps().heat_maps(), wanted, atol=1e-3)


def test_half_precision(case: Case) -> None:
    wanted, pipe = plain(case), case.make()
    pipe.transformer.to(torch.bfloat16)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if getattr(pipe, name, None) is not None:
            getattr(pipe, name).to(torch.bfloat16)
    check(pipe, case, wanted, 0.05)


class Quantised(nn.Module):
    """A linear layer of whole numbers that makes its weights anew in each call, as GGUF's, torchao's and bitsandbytes' do."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax() / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.scale, self.bias = scale, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def test_quantised_weights(case: Case) -> None:
    pipe = case.make()
    for module in list(pipe.transformer.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Linear) and name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj"):
                setattr(module, name, Quantised(part))
    check(pipe, case)
    assert worst_error(pipe, case) < 1e-5


@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
@pytest.mark.parametrize("name", ["flux", "wan"])
def test_backends_of_attention(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    wanted, pipe = plain(case), case.make()
    # A model's choice is the whole process's in diffusers: it is taken back for the tests that follow.
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend)
    pipe.transformer.set_attention_backend(backend)
    check(pipe, case, wanted)


def parallel(devices: int) -> SimpleNamespace:
    """What diffusers keeps of a model whose weights are spread over several devices."""
    return SimpleNamespace(tensor_parallel_config=SimpleNamespace(tp_degree=devices), context_parallel_config=None)


def test_heads_that_other_devices_have_are_told() -> None:
    """With tensor parallel each device attends with its own heads, and nothing in the attention itself shows that."""
    case, pipe = CASES["flux"], CASES["flux"].make()
    before = paint(pipe, case)
    pipe.transformer._parallel_config = parallel(2)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, case), before)
    assert recording.failure is not None
    assert "Tensor parallel spreads the heads of FluxTransformer2DModel over 2 devices" in recording.failure
    assert "load it without `parallel_config`" in recording.failure
    pipe.transformer._parallel_config = parallel(1)
    check(pipe, case)


def sequential(pipe: Any) -> None:
    from accelerate import cpu_offload

    cpu_offload(pipe.transformer, execution_device=torch.device("cpu"))


def by_groups(pipe: Any) -> None:
    pipe.transformer.enable_group_offload(
        torch.device("cpu"), torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )


def layer_casting(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


@pytest.mark.parametrize("offload", [sequential, by_groups, layer_casting])
def test_weights_that_are_kept_elsewhere(case: Case, offload: Callable[[Any], None]) -> None:
    wanted, pipe = plain(case), case.make()
    offload(pipe)
    check(pipe, case, wanted, 0.05 if offload is layer_casting else 1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_cross_attention(whole: bool) -> None:
    torch._dynamo.reset()
    case = CASES["pixart"]
    wanted, pipe = plain(case), case.make()
    if whole:
        pipe.transformer.compile(backend="aot_eager")
    else:
        for block in pipe.transformer.transformer_blocks:
            block.compile(backend="aot_eager")
    check(pipe, case, wanted)


def test_nested_traces(case: Case) -> None:
    pipe = case.make()
    before = paint(pipe, case)
    with trace(pipe) as outer, trace(pipe) as inner:
        during = paint(pipe, case)
    assert torch.equal(during, before)
    assert torch.equal(outer.heat_maps().heat_maps(), inner.heat_maps().heat_maps())


def test_a_trace_that_is_entered_inside_its_own_block_listens_until_the_outer_one_ends(case: Case) -> None:
    """It heard everything twice inside, and nothing behind the inner block: the maps were those of an earlier call."""
    wanted, pipe = plain(case), case.make()
    recording = trace(pipe)
    with recording:
        with recording:
            paint(pipe, case)
        paint(pipe, case)
    assert paint(pipe, case) is not None and recording.num_generations == 2
    for number in (0, 1):
        assert torch.equal(recording.heat_maps(generation=number).heat_maps(), wanted)


def test_two_traced_pipelines_in_two_threads(case: Case) -> None:
    """Each hears its own."""
    wanted = plain(case)
    pipes, found = [case.make(), case.make()], {}

    def run(number: int) -> None:
        with trace(pipes[number]) as recording:
            paint(pipes[number], case)
        found[number] = recording

    threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for recording in found.values():
        assert recording.num_generations == 1 and recording.failure is None
        assert (recording.heat_maps().heat_maps() - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["sd3", "wan"])
def test_guidance_that_a_callback_switches_off(name: str) -> None:
    """From there on the batch holds the prompt alone, or the model is called once a step. Flux decides before."""
    case, pipe = CASES[name], CASES[name].make()
    stacked = ["prompt_embeds", "pooled_prompt_embeds"] if name == "sd3" else []

    def off(pipe: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if step == 0:
            pipe._guidance_scale = 0.0
            for tensor in stacked:
                tensors[tensor] = tensors[tensor].chunk(2)[1]
        return tensors

    given: dict[str, Any] = {"callback_on_step_end": off, "num_inference_steps": 3}
    given["callback_on_step_end_tensor_inputs"] = ["latents", *stacked]
    before = paint(pipe, case, **given)
    with trace(pipe, negative=True) as recording:
        during = paint(pipe, case, **given)
    assert torch.equal(during, before)
    for maps in recording:
        assert maps.steps == 3
        assert maps.num_terms[4, 6] == 3 * maps.negative.num_terms[4, 6]


# -- caches ---------------------------------------------------------------------------------------------------------------


def first_block() -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=10.0)


def broadcast() -> Any:
    from diffusers import PyramidAttentionBroadcastConfig

    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=3, cross_attention_block_skip_range=3,
        spatial_attention_timestep_skip_range=(-1, 10**4), cross_attention_timestep_skip_range=(-1, 10**4),
        current_timestep_callback=lambda: 500,
    )  # fmt: skip


def taylor() -> Any:
    from diffusers.hooks import TaylorSeerCacheConfig

    return TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1, max_order=1)


@pytest.mark.parametrize(
    ("name", "cache"), [("flux", first_block), ("flux", broadcast), ("flux", taylor), ("wan", first_block), ("wan", broadcast)]
)
def test_caches_that_skip_attention_mean_fewer_terms_and_it_is_said(
    name: str, cache: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    case, pipe = CASES[name], CASES[name].make()
    pipe.transformer.enable_cache(cache())
    before = paint(pipe, case, num_inference_steps=5)
    with caplog.at_level(logging.WARNING, "daam_lens"), trace(pipe) as recording:
        during = paint(pipe, case, num_inference_steps=5)
    assert torch.equal(during, before) and recording.failure is None
    maps = recording.heat_maps()
    assert 0 < maps.num_terms[4, 6] < 5 * 2 * 2 * case.frames and maps.words[:3] == ["a", "red", "house"]
    assert sum("sums of fewer terms" in record.message for record in caplog.records) == 1


def test_a_cache_of_joint_attention_through_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    """CogVideoX: Stable Diffusion 3 takes none of diffusers' caches."""
    pipe = cog_video_x()
    pipe.transformer.enable_cache(first_block())
    given: dict[str, Any] = {
        "num_frames": 9, "height": 64, "width": 96, "num_inference_steps": 4, "output_type": "latent",
        "max_sequence_length": 20,
    }  # fmt: skip

    def film() -> Tensor:
        return torch.as_tensor(pipe("a red house", generator=torch.Generator().manual_seed(1), **given).frames)

    before = film()
    with caplog.at_level(logging.WARNING, "daam_lens"), trace(pipe) as recording:
        assert torch.equal(film(), before)
    maps = recording.heat_maps()
    heads = maps.layers[0].heads
    assert recording.failure is None and 0 < maps.num_terms[maps.grid] < 4 * len(maps.layers) * heads * maps.num_frames
    assert sum("sums of fewer terms" in record.message for record in caplog.records) == 1
