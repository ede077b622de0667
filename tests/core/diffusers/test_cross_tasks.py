"""What pipelines whose text has an attention of its own do besides painting: edits with references, inpaint, ControlNet."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderDC,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DControlNetModel,
    HunyuanDiT2DModel,
    HunyuanDiTControlNetPipeline,
    SanaControlNetModel,
    SanaControlNetPipeline,
    SanaTransformer2DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from PIL import Image
from torch import Tensor

from daam_core import trace

from ..capture.attention_witness import Witness
from ..models import tokenizer as clip_tokenizer
from .pipeline_cases import at
from .test_transformer_tasks import autoencoder
from .transformer_pipelines import WIDTH as EMBEDDED
from .transformer_pipelines import TextEncoder, sentence_piece, spread
from .video_pipelines import wan_with_autoencoder

HEIGHT, WIDTH, PATCHES = 64, 96, 24
WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]
PROMPT = "a red house and a green tree"


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))


def hole() -> Image.Image:
    return Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), ((8, 24), (8, 56))))


def vace() -> Any:
    """Wan with VACE: its control blocks are part of the transformer and attend to the text, too."""
    components = dict(wan_with_autoencoder().components)
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=EMBEDDED, freq_dim=16,
        ffn_dim=16, num_layers=2, rope_max_seq_len=32, vace_layers=[0, 1], vace_in_channels=2 * 16 + 64,
    )  # fmt: skip
    names = ("tokenizer", "text_encoder", "vae", "scheduler")
    return spread(WanVACEPipeline(**{name: components[name] for name in names}, transformer=transformer))


def sana_controlnet() -> Any:
    torch.manual_seed(0)
    gemma = sentence_piece()
    network: dict[str, Any] = {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
        "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
        "caption_channels": EMBEDDED, "sample_size": 8,
    }  # fmt: skip
    transformer, control = SanaTransformer2DModel(num_layers=2, **network), SanaControlNetModel(num_layers=2, **network)
    for layer in control.controlnet_blocks:
        torch.nn.init.normal_(layer.weight)
    autoencoder = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock",) * 5, decoder_block_types=("ResBlock",) * 5,
        encoder_block_out_channels=(8,) * 5, decoder_block_out_channels=(8,) * 5, encoder_layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, encoder_qkv_multiscales=((),) * 5, decoder_qkv_multiscales=((),) * 5,
        downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler()
    return spread(
        SanaControlNetPipeline(gemma, TextEncoder(len(gemma)), autoencoder.eval(), transformer, control.eval(), scheduler)
    )


SANA: dict[str, Any] = {
    "control_image": picture(), "height": HEIGHT, "width": WIDTH, "use_resolution_binning": False,
    "complex_human_instruction": None,
}  # fmt: skip
VACE: dict[str, Any] = {"height": HEIGHT, "width": WIDTH, "num_frames": 5}


@dataclass
class Task:
    """A pipeline, the options of its call, and what its source says of the picture's attention to the text.

    Attributes:
        references: latent frames of references ahead of those of the video.
        row: of the prompt, where the negative prompt is a row of the same call; else None, and it has every second call.
        apart: the control's blocks, where they are a part of the transformer.
    """

    make: Callable[[], Any]
    given: dict[str, Any]
    frames: int
    references: int = 0
    row: int | None = None
    apart: str = ""


TASKS = {
    "vace inpaint": Task(vace, {**VACE, "video": [picture()] * 5, "mask": [hole()] * 5}, 2, apart="vace_blocks"),
    "vace edit": Task(vace, {**VACE, "reference_images": [picture()]}, 2, references=1, apart="vace_blocks"),
    "sana controlnet": Task(sana_controlnet, SANA, 1, row=1),
}


def paint(pipe: Any, given: dict[str, Any]) -> Tensor:
    out = pipe(
        prompt=PROMPT, num_inference_steps=2, max_sequence_length=20, output_type="latent",
        generator=torch.Generator().manual_seed(1), **given,
    )  # fmt: skip
    return torch.as_tensor(out[0])


@pytest.mark.parametrize("name", TASKS)
def test_a_control_is_not_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is bit-identical; the maps are the equation's over the model's own attention, not its control's.

    Wan's pipelines clean prompts by a package that is not here.
    """
    module = importlib.import_module(WanVACEPipeline.__module__)
    monkeypatch.setattr(module, "ftfy", SimpleNamespace(fix_text=str), raising=False)
    task = TASKS[name]
    pipe = task.make()
    before = paint(pipe, task.given)
    with trace(pipe) as recording:
        during = paint(pipe, task.given)
    assert recording.failure is None and torch.equal(during, before)
    (maps,) = recording
    assert maps.words == WORDS and maps.size == (HEIGHT, WIDTH) and maps.grid == (4, 6)
    assert maps.num_frames == task.frames and maps.num_terms[4, 6] == maps.steps * 2 * 2
    shape = (task.frames, 4, 6) if task.frames > 1 else (4, 6)
    error = maps.heat_map("green").double() - by_witness(pipe, task).view(shape)
    assert error.abs().max() / maps.num_terms[4, 6] < 1e-5


def by_witness(pipe: Any, task: Task) -> Tensor:
    """float64 `[frames * h * w]`: attention to "green" of the transformer's own layers, the prompt's side."""
    whole = (task.references + task.frames) * PATCHES
    if task.apart:
        with Witness(pipe.transformer, task.apart) as witness:
            paint(pipe, task.given)
    else:  # the control's calls come before the transformer's, two layers each
        with Witness() as witness:
            paint(pipe, task.given)
    read = [i for i, (q, k, *_) in enumerate(witness.calls) if (q.shape[-2], k.shape[-2]) == (whole, 20)]
    # In each step: two layers of the control, then two of the model; or two for the prompt, then two for the negative one.
    own = [i for n, i in enumerate(read) if (n % 4 >= 2) == (task.row is not None)]
    assert len(read) == 2 * len(own) == 8
    keys = at(pipe.tokenizer, PROMPT, PROMPT, "green")
    maps = [witness.probabilities(i)[task.row or 0].sum(0)[..., keys].sum(-1) for i in own]
    return torch.stack(maps).sum(0)[task.references * PATCHES :]


def hunyuan_controlnet() -> Any:
    """HunyuanDiT and a control of one block, which attends to both encoders' text, too."""
    torch.manual_seed(0)
    bert, t5 = clip_tokenizer(), sentence_piece()
    network: dict[str, Any] = {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": 2, "sample_size": 8,
        "hidden_size": 16, "cross_attention_dim": EMBEDDED, "cross_attention_dim_t5": EMBEDDED, "pooled_projection_dim": 8,
    }  # fmt: skip
    transformer = HunyuanDiT2DModel(num_layers=4, **network)
    control = HunyuanDiT2DControlNetModel(transformer_num_layers=4, **network)
    for layer in control.controlnet_blocks:
        torch.nn.init.normal_(layer.weight)
    return spread(
        HunyuanDiTControlNetPipeline(
            vae=autoencoder(), text_encoder=TextEncoder(len(bert)), tokenizer=bert, transformer=transformer,
            scheduler=DDPMScheduler(), safety_checker=None, feature_extractor=None, controlnet=control.eval(),
            text_encoder_2=TextEncoder(len(t5)), tokenizer_2=t5, requires_safety_checker=False,
        )
    )  # fmt: skip


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_hunyuan_dit_is_read_without_its_control(guidance: float) -> None:
    """Each step: one block of the control, then four of the model; CLIP's columns and then T5's."""
    pipe = hunyuan_controlnet()

    def run() -> Tensor:
        out = pipe(
            PROMPT, HEIGHT, WIDTH, num_inference_steps=2, guidance_scale=guidance, control_image=picture(),
            generator=torch.Generator().manual_seed(1), use_resolution_binning=False, output_type="latent",
        )  # fmt: skip
        return torch.as_tensor(out.images)

    before = run()
    with trace(pipe) as recording:
        assert torch.equal(run(), before)
    (maps,) = recording
    assert recording.failure is None and maps.words == WORDS and maps.grid == (4, 6) and maps.size == (HEIGHT, WIDTH)
    with Witness() as witness:
        run()
    read = [i for i, (q, k, *_) in enumerate(witness.calls) if (q.shape[-2], k.shape[-2]) == (PATCHES, 77 + 256)]
    own = [index for number, index in enumerate(read) if number % 5]
    assert (len(read), len(own)) == (10, 8) and maps.num_terms[4, 6] == 8 * 2
    keys = [*at(pipe.tokenizer, PROMPT, PROMPT, "green"), *at(pipe.tokenizer_2, PROMPT, PROMPT, "green", base=77)]
    true = sum(witness.probabilities(i)[-1].sum(0)[:, keys].sum(-1) for i in own)
    error = maps.heat_map("green").double() - torch.as_tensor(true).view(4, 6)
    assert error.abs().max() / maps.num_terms[4, 6] < 1e-5 and float(torch.as_tensor(true).std()) > 0
