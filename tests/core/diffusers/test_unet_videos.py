"""UNets of videos: a map for each frame, of the attention inside that frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UNetMotionModel,
)

from daam_core import trace
from daam_core.errors import NothingRecorded

from ..models import PROMPT, pipeline, scheduler, tokenizer
from .unet_witness import Witness

FRAMES = 3
OPTIONS: dict[str, Any] = {"num_inference_steps": 2, "num_frames": FRAMES, "height": 64, "width": 48}


def autoencoder() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=2, latent_channels=4, **blocks).eval()


def animatediff() -> Any:
    base = pipeline("small")
    motion = MotionAdapter(block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=2,
                           motion_num_attention_heads=2)  # fmt: skip
    unet = UNetMotionModel.from_unet2d(base.unet, motion)
    return AnimateDiffPipeline(autoencoder(), base.text_encoder, tokenizer(), unet, motion, scheduler())


def text_to_video() -> Any:
    torch.manual_seed(1)
    unet = UNet3DConditionModel(
        block_out_channels=(16, 32), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), norm_num_groups=2,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=32, attention_head_dim=8, layers_per_block=1,
    )  # fmt: skip
    for name, weight in unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_q" in name:
            weight.data *= 8
    return TextToVideoSDPipeline(autoencoder(), pipeline("small").text_encoder, tokenizer(), unet.eval(), scheduler())


@pytest.mark.parametrize("build", [animatediff, text_to_video])
def test_every_frame_has_its_own_map(build: Any) -> None:
    """Equal to an explicit computation for each frame; the video is bit-identical; attention between frames is no text's."""
    pipe = build()
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        text = pipe.encode_prompt(PROMPT, "cpu", 1, True)[0][0]

    def run() -> torch.Tensor:
        return torch.as_tensor(pipe(PROMPT, output_type="pt", generator=torch.Generator().manual_seed(1), **OPTIONS).frames)

    before = run()
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        assert torch.equal(run(), before)
    maps = recording.heat_maps()
    assert (maps.num_frames, maps.steps, maps.words[2]) == (FRAMES, 2, "house")
    assert maps.heat_map("house").shape == (FRAMES, *maps.grid)
    assert maps.negative is not None and maps.negative.words == []
    for (h, w), channels in maps.sums.items():
        true = torch.zeros(FRAMES, h * w, 77, dtype=torch.float64)
        for forward in witness.forwards:
            rows = [i for i, own in enumerate(forward.texts) if torch.equal(own, text)]
            first = rows[0] * (FRAMES if len(forward.texts) == 2 else 1)
            true += forward.sums[h * w][first : first + FRAMES]
        expected = true[:, :, 1:8].transpose(1, 2)
        ours = channels[:, 1:-2].flatten(2)
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_frames_with_texts_of_their_own_are_refused() -> None:
    pipe = animatediff()
    pipe.set_progress_bar_config(disable=True)

    def change(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        other = given["prompt_embeds"].clone()
        other[-1] += 1
        return {**given, "prompt_embeds": other}

    with trace(pipe) as recording:
        pipe(PROMPT, output_type="pt", callback_on_step_end=change, callback_on_step_end_tensor_inputs=["prompt_embeds"],
             **OPTIONS)  # fmt: skip
    with pytest.raises(NothingRecorded, match="the frames of one video were given different texts"):
        recording.heat_maps()
