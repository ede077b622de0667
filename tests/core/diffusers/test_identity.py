"""Never harm the picture: with and without a trace, latents and pixels are equal bit for bit, in every way to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    UniPCMultistepScheduler,
)
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

from daam_core import trace

from ..models import PROMPT, paint, pipeline, unet

Case = tuple[Any, dict[str, Any]]


def plain(**options: Any) -> Case:
    return pipeline(), options


def scheduled(scheduler: Any) -> Case:
    pipe = pipeline()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    return pipe, {}


def processed(processor: Any) -> Case:
    pipe = pipeline()
    pipe.unet.set_attn_processor(processor)
    return pipe, {}


def img2img(kind: str, cls: Any) -> Case:
    base = pipeline(kind)
    pipe = cls.from_pipe(base, vae=base.vae)
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    return pipe, {"image": image, "num_inference_steps": 4, "strength": 0.5, "height": None, "width": None}


def inpaint(kind: str, cls: Any) -> Case:
    pipe, options = img2img(kind, cls)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    return pipe, options | {"mask_image": mask, "height": 64, "width": 64}


def inpaint_model() -> Case:
    pipe, options = inpaint("sd15", StableDiffusionInpaintPipeline)
    torch.manual_seed(2)
    pipe.register_modules(unet=unet("sd15", in_channels=9))
    return pipe, options


def controlnet() -> Case:
    base = pipeline()
    torch.manual_seed(4)
    control = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(8, 8, 8, 8))
    parts = {k: v for k, v in base.components.items() if k != "image_encoder"}
    pipe = StableDiffusionControlNetPipeline(**parts, controlnet=control, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"image": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))}


def perturbed(guidance: float) -> Case:
    base = pipeline()
    pipe = StableDiffusionPAGPipeline(**base.components, requires_safety_checker=False,
                                      pag_applied_layers=["mid"])  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"pag_scale": 2.0, "guidance_scale": guidance}


def lora() -> Case:
    from peft import LoraConfig

    pipe = pipeline()
    config = LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    pipe.unet.add_adapter(config)
    return pipe, {}


def ip_adapter() -> Case:
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    pipe = pipeline()
    torch.manual_seed(6)
    for name, part in pipe.unet.named_modules():
        if name.endswith("attn2"):
            part.set_processor(IPAdapterAttnProcessor2_0(part.inner_dim, 32, num_tokens=[4], scale=[0.7]))
    pipe.unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(16, 32, 4)])
    pipe.unet.config["encoder_hid_dim_type"] = "ip_image_proj"
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    return pipe, {"ip_adapter_image_embeds": [torch.rand(2, 1, 16)]}


def converted(dtype: torch.dtype) -> Case:
    return pipeline().to(dtype), {}


def offloaded() -> Case:
    from accelerate import cpu_offload_with_hook

    pipe = pipeline()
    # enable_model_cpu_offload wants an accelerator; this is the hook it installs, with the CPU as both sides.
    pipe.unet, _ = cpu_offload_with_hook(pipe.unet, torch.device("cpu"))
    return pipe, {}


def sdxl(**options: Any) -> Case:
    return pipeline("sdxl"), options


WAYS: dict[str, Callable[[], Case]] = {
    "plain": plain,
    "latents out": lambda: plain(output_type="latent"),
    "size of 8": lambda: plain(height=88, width=136),
    "guidance off": lambda: plain(guidance_scale=1.0),
    "guidance_rescale": lambda: plain(guidance_rescale=0.7),
    "negative prompt": lambda: plain(negative_prompt="a blue moon"),
    "batch of 4": lambda: plain(num_images_per_prompt=4),
    "empty prompt": lambda: plain(prompt=""),
    "10,000 characters": lambda: plain(prompt="a red house, " * 770),
    "eta": lambda: plain(eta=1.0),
    "sd2": lambda: (pipeline("sd2"), {}),
    "sdxl": sdxl,
    "sdxl two prompts": lambda: sdxl(prompt_2="a star"),
    "sdxl img2img": lambda: img2img("sdxl", StableDiffusionXLImg2ImgPipeline),
    "sdxl inpaint": lambda: inpaint("sdxl", StableDiffusionXLInpaintPipeline),
    "img2img": lambda: img2img("sd15", StableDiffusionImg2ImgPipeline),
    "inpaint": lambda: inpaint("sd15", StableDiffusionInpaintPipeline),
    "inpaint model": inpaint_model,
    "controlnet": controlnet,
    "pag": lambda: perturbed(5.0),
    "pag without guidance": lambda: perturbed(1.0),
    "lora": lora,
    "ip-adapter": ip_adapter,
    "euler a": lambda: scheduled(EulerAncestralDiscreteScheduler),
    "heun": lambda: scheduled(HeunDiscreteScheduler),
    "lcm": lambda: scheduled(LCMScheduler),
    "dpm++": lambda: scheduled(DPMSolverMultistepScheduler),
    "unipc": lambda: scheduled(UniPCMultistepScheduler),
    "sdpa": lambda: processed(AttnProcessor2_0()),
    "plain attention": lambda: processed(AttnProcessor()),
    "attention slicing": lambda: processed(SlicedAttnProcessor(2)),
    "fused projections": lambda: (lambda c: (c[0].unet.fuse_qkv_projections(), c)[1])(plain()),
    "freeu": lambda: (lambda c: (c[0].enable_freeu(0.9, 0.2, 1.2, 1.4), c)[1])(plain()),
    "float16": lambda: converted(torch.float16),
    "bfloat16": lambda: converted(torch.bfloat16),
    "cpu offload": offloaded,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_picture_is_bit_identical_with_and_without_a_trace(way: str) -> None:
    pipe, options = WAYS[way]()
    prompt = options.pop("prompt", PROMPT)
    before = paint(pipe, prompt, **options)
    with trace(pipe, keep=("layers", "steps", "heads"), negative=True) as recording:
        during = paint(pipe, prompt, **options)
    after = paint(pipe, prompt, **options)
    assert torch.equal(before, after), "the way itself does not repeat, so it can show nothing"
    assert torch.equal(before, during)
    assert recording.failure is None
    maps = recording.heat_maps(before.shape[0] - 1)
    assert maps.words[:3] == prompt.replace(",", " ,").split()[:3]
    assert maps.heat_maps().shape[0] == len(maps.words)
    for grid, rows in maps.sums.items():
        # Every head, layer and step that was listened to is there, and nothing twice.
        assert torch.allclose(rows.sum(0), torch.full(grid, float(maps.num_terms[grid])), rtol=2e-3)
    listened = {layer.name for layer in maps.layers}
    assert listened == {n for n, m in pipe.unet.named_modules() if n.endswith(".attn2")}


def test_several_prompts_at_once_are_bit_identical() -> None:
    pipe = pipeline()
    prompts = [PROMPT, "", "a star"]
    before = paint(pipe, prompts, num_images_per_prompt=2)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, prompts, num_images_per_prompt=2), before)
    assert [len(recording.heat_maps(i).words) for i in range(6)] == [7, 7, 0, 0, 2, 2]


def test_lora_loaded_inside_the_trace_is_heard() -> None:
    """The maps follow the LoRA: its keys are the ones recorded, not those of the layer it replaced."""
    from peft import LoraConfig

    pipe = pipeline()
    with trace(pipe) as recording:
        paint(pipe)
        torch.manual_seed(0)
        pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k"], init_lora_weights=False))
        paint(pipe)
    assert recording.failure is None
    plain_maps, with_lora = recording.heat_maps(generation=0), recording.heat_maps(generation=1)
    assert not torch.allclose(plain_maps.heat_map("house"), with_lora.heat_map("house"), rtol=1e-2)
    assert len(with_lora.layers) == len(plain_maps.layers)


def test_a_low_precision_model_gives_maps_close_to_the_full_one() -> None:
    """bfloat16 weights, float32 sums: within the projections' rounding: 6 % on a processor without bfloat16."""
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        pipe = pipeline().to(dtype)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)).to(dtype)
        with trace(pipe) as recording:
            paint(pipe, latents=latents, num_inference_steps=1)
        maps.append(recording.heat_maps().heat_maps())
    assert (maps[0] - maps[1]).abs().max() < 0.1 * maps[0].max()
    assert (maps[0] - maps[1]).abs().mean() < 0.02 * maps[0].mean()


@pytest.mark.slow
@pytest.mark.parametrize(("fullgraph", "backend"), [(False, "eager"), (True, "aot_eager")])
def test_a_compiled_unet_is_recorded_bit_identically(fullgraph: bool, backend: str) -> None:
    """torch.compile before the trace, used before, inside and after it; fullgraph=True must not break."""
    pipe = pipeline("small")  # two grids, and half the time to compile
    eager = pipe.unet
    with trace(pipe) as recording:
        paint(pipe)
    expected = recording.heat_maps().heat_maps()
    pipe.unet = torch.compile(eager, fullgraph=fullgraph, backend=backend)
    before = paint(pipe)
    with trace(pipe) as recording:
        during = paint(pipe)
    assert torch.equal(before, during)
    assert recording.failure is None
    assert torch.allclose(recording.heat_maps().heat_maps(), expected, rtol=1e-4, atol=1e-4)
    runs = recording.num_generations
    assert torch.equal(paint(pipe), before)
    assert recording.num_generations == runs
