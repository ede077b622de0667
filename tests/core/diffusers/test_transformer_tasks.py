"""What pipelines with a transformer do besides painting from a text: img2img, inpaint, edits with references, ControlNet."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3PAGPipeline,
    WanVideoToVideoPipeline,
)
from PIL import Image
from torch import Tensor

from daam_core import trace

from ..capture.attention_witness import Witness
from . import transformer_pipelines as made
from .pipeline_cases import CASES
from .video_pipelines import wan_with_autoencoder

HEIGHT, WIDTH = 64, 96
WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]


def picture(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def hole() -> Image.Image:
    return Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), ((8, 24), (8, 56))))


def autoencoder(channels: int = 4) -> Any:
    torch.manual_seed(0)
    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4, shift_factor=0.0, scaling_factor=1.0,
    )  # fmt: skip


def parts(name: str, **more: Any) -> dict[str, Any]:
    components = CASES[name].make().components
    return {**components, "vae": autoencoder(), **more}


def flux_controlnet() -> Any:
    torch.manual_seed(0)
    control = FluxControlNetModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=made.WIDTH, pooled_projection_dim=made.WIDTH, axes_dims_rope=[2, 2, 4],
    )  # fmt: skip
    return FluxControlNetPipeline(**parts("flux", controlnet=control))


def sd3_inpaint() -> Any:
    """The pipeline takes transformers of 16 channels alone."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=16,
    )  # fmt: skip
    return StableDiffusion3InpaintPipeline(**parts("sd3", transformer=transformer.eval(), vae=autoencoder(16)))


def sd3_controlnet() -> Any:
    torch.manual_seed(0)
    control = SD3ControlNetModel(
        sample_size=8, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
        caption_projection_dim=16, pooled_projection_dim=24, out_channels=4, pos_embed_max_size=16,
        extra_conditioning_channels=0,
    )  # fmt: skip
    return StableDiffusion3ControlNetPipeline(**parts("sd3", controlnet=control))


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "flux img2img": (lambda: FluxImg2ImgPipeline(**parts("flux")), {"image": picture(), "strength": 0.7}),
    "flux inpaint": (lambda: FluxInpaintPipeline(**parts("flux")), {"image": picture(), "mask_image": hole(), "strength": 0.7}),
    "flux kontext": (
        lambda: FluxKontextPipeline(**parts("flux")),
        {"image": picture(32, 48), "_auto_resize": False, "max_area": HEIGHT * WIDTH},
    ),
    "flux controlnet": (flux_controlnet, {"control_image": picture()}),
    "sd3 img2img": (lambda: StableDiffusion3Img2ImgPipeline(**parts("sd3")), {"image": picture(), "strength": 0.7}),
    "sd3 inpaint": (
        sd3_inpaint,
        {"image": picture(), "mask_image": hole(), "strength": 0.7},
    ),
    "sd3 controlnet": (sd3_controlnet, {"control_image": picture()}),
}


def paint(pipe: Any, given: dict[str, Any]) -> Tensor:
    options = {"height": HEIGHT, "width": WIDTH, "num_inference_steps": 3, "output_type": "pt", "max_sequence_length": 20}
    generator = torch.Generator().manual_seed(1)
    out = pipe(prompt="a red house and a green tree", generator=generator, **{**options, **given})
    return torch.as_tensor(np.stack([np.asarray(one) for one in out.images]))


@pytest.mark.parametrize("name", TASKS)
def test_the_picture_is_untouched_and_its_words_have_maps(name: str) -> None:
    """A reference and a control have tokens, or a model, of their own, which are not counted."""
    make, given = TASKS[name]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)

    before = paint(pipe, given)
    with trace(pipe) as recording:
        during = paint(pipe, given)
    assert recording.failure is None and torch.equal(during, before)
    (maps,) = recording
    assert maps.words == WORDS and maps.size == (HEIGHT, WIDTH) and maps.grid == (4, 6)
    assert maps.picture is not None and maps.picture.shape == (HEIGHT, WIDTH, 3)
    assert maps.num_terms[4, 6] == maps.steps * 2 * 2


def test_a_video_that_another_is_made_from_is_no_part_of_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-attention: Wan, from the frames of a video. Its pipeline cleans prompts by a package that is not here."""
    module = importlib.import_module(WanVideoToVideoPipeline.__module__)
    monkeypatch.setattr(module, "ftfy", SimpleNamespace(fix_text=str), raising=False)
    components = dict(wan_with_autoencoder().components)
    names = inspect.signature(WanVideoToVideoPipeline.__init__).parameters
    pipe = WanVideoToVideoPipeline(**{name: part for name, part in components.items() if name in names})
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"video": [picture() for _ in range(5)], "strength": 0.7, "num_inference_steps": 3}

    def film() -> Tensor:
        options = {"height": HEIGHT, "width": WIDTH, "output_type": "latent", "max_sequence_length": 20}
        return torch.as_tensor(
            pipe(prompt="a red house and a green tree", generator=torch.Generator().manual_seed(1), **options, **given).frames
        )

    before = film()
    with trace(pipe) as recording:
        assert torch.equal(film(), before)
    (maps,) = recording
    assert recording.failure is None and maps.words == WORDS and maps.steps == 2 and maps.num_frames == 2


def test_a_cut_around_the_mask_is_refused_by_a_sentence() -> None:
    make, given = TASKS["flux inpaint"]
    pipe, cut = make(), {**given, "padding_mask_crop": 8, "output_type": "pil"}
    before = paint(pipe, cut)
    with trace(pipe) as recording:
        during = paint(pipe, cut)
    assert torch.equal(during, before) and "padding_mask_crop" in (recording.failure or "")


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_perturbed_guidance_reads_what_is_not_perturbed(guidance: float) -> None:
    """PAG: a layer attends twice, for the rows that are not perturbed and for those that are; the others attend once."""
    components = dict(CASES["sd3"].make().components)
    for name in ("image_encoder", "feature_extractor"):
        components.pop(name)
    pipe = StableDiffusion3PAGPipeline(**components, pag_applied_layers=["blocks.0"])
    pipe.set_progress_bar_config(disable=True)
    given = {"guidance_scale": guidance, "pag_scale": 2.0, "output_type": "latent", "negative_prompt": "dark"}
    before = paint(pipe, given)
    with trace(pipe, negative=guidance > 1) as recording:
        assert torch.equal(paint(pipe, given), before)
    assert recording.failure is None
    (maps,) = recording
    assert maps.words == WORDS and maps.num_terms[4, 6] == 3 * 2 * 2
    with Witness() as witness:
        paint(pipe, given)
    texts = 2 if guidance > 1 else 1
    keys = CASES["sd3"].keys(pipe, "a red house and a green tree", "green")
    total, seen = torch.zeros(24, dtype=torch.float64), 0
    for index, (q, *_) in enumerate(witness.calls):
        if q.shape[-2] != 97 + 24:
            continue
        # In each step: of the perturbed layer the texts, then the perturbed prompt; of the other all of them at once.
        seen += 1
        if seen % 3 != 2:
            total += witness.probabilities(index)[texts - 1].sum(0)[:24, keys].sum(-1)
    error = (maps.heat_map("green").double() - total.unflatten(0, (4, 6))).abs().max() / maps.num_terms[4, 6]
    assert seen == 9 and error < 1e-5
