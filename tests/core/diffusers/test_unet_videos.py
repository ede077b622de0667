"""UNets of videos: a map for each frame, of the attention inside that frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    I2VGenXLPipeline,
    I2VGenXLUNet,
    MotionAdapter,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UNetMotionModel,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from daam_core import trace
from daam_core.capture.unet_layers import columns_behind
from daam_core.errors import NothingRecorded
from daam_core.types import Side

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


def test_freenoise_is_refused_with_what_to_do() -> None:
    """It blends the texts of the frames, of one prompt, too, and what it encodes is none of them."""
    pipe = animatediff()
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_free_noise(context_length=2, context_stride=1)
    with trace(pipe) as recording:
        pipe(PROMPT, output_type="pt", **OPTIONS)
    with pytest.raises(NothingRecorded, match=r"FreeNoise blends the texts .* `pipe\.disable_free_noise\(\)`"):
        recording.heat_maps()
    pipe.disable_free_noise()
    with trace(pipe) as recording:
        pipe(PROMPT, output_type="pt", **OPTIONS)
    assert recording.heat_maps().num_frames == FRAMES


BEHIND = 8 * 8 + 4
"""Keys behind I2VGen-XL's text: a square of 32 halved twice, and one of its embedding for each channel of the latents."""


def i2vgen(crop: int = 32) -> Any:
    torch.manual_seed(1)
    unet = I2VGenXLUNet(
        block_out_channels=(16, 32), down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), norm_num_groups=2,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=32, attention_head_dim=8, layers_per_block=1,
        sample_size=8,
    )  # fmt: skip
    for name, weight in unet.named_parameters():
        if "attn2.to_k" in name or "attn2.to_q" in name:
            weight.data *= 8
    config = CLIPVisionConfig(
        hidden_size=16, projection_dim=32, num_hidden_layers=1, num_attention_heads=2, image_size=crop, intermediate_size=16,
        patch_size=16,
    )  # fmt: skip
    pipe = I2VGenXLPipeline(
        autoencoder(), pipeline("small").text_encoder, tokenizer(), CLIPVisionModelWithProjection(config).eval(),
        CLIPImageProcessor(crop_size=crop, size=crop), unet.eval(), scheduler(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe._guidance_scale = 9.0  # what its `encode_prompt` asks for ahead of a call
    return pipe


FROM_A_PICTURE: dict[str, Any] = {"num_frames": FRAMES, "num_inference_steps": 1, "output_type": "latent", "clip_skip": None}
"""Its own default of `clip_skip` asks for a part of CLIP that is not there any more."""


def test_a_video_from_a_picture_is_read_by_the_text_among_its_keys() -> None:
    """I2VGen-XL: two videos, not square, both sides; the keys of the picture take part in the softmax."""
    pipe = i2vgen()
    prompts = [PROMPT, "a star"]
    pictures = [Image.effect_noise((48, 64), 60 + 9 * i).convert("RGB") for i in (0, 1)]
    with torch.no_grad():
        texts = pipe.encode_prompt(prompts, "cpu", 1, ["a tree", "a moon"], clip_skip=None)

    def run() -> torch.Tensor:
        torch.manual_seed(3)  # it draws what it starts from without its generator
        out = pipe(
            list(prompts), pictures, 64, 48, negative_prompt=["a tree", "a moon"], num_frames=FRAMES, num_inference_steps=2,
            clip_skip=None, output_type="pt", generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        return torch.as_tensor(out.frames)

    before = run()
    witness = Witness(pipe.unet, behind=BEHIND)
    with trace(pipe, negative=True) as recording:
        assert torch.equal(run(), before)
    assert [maps.words for maps in recording] == [["a", "red", "house", "and", "a#2", "green", "tree"], ["a", "star"]]
    for number, maps in enumerate(recording):
        assert (maps.num_frames, maps.steps, maps.size) == (FRAMES, 2, (64, 48))
        assert maps.negative is not None and maps.negative.words == ["a", ("tree", "moon")[number]]
        sides: tuple[Side, ...] = ("prompt", "negative")
        for side, text in zip(sides, texts, strict=True):
            image = maps.sides[side]
            for (h, w), channels in image.sums.items():
                true = torch.zeros(FRAMES, h * w, 77 + BEHIND, dtype=torch.float64)
                for forward in witness.forwards:
                    (row,) = (i for i, own in enumerate(forward.texts) if torch.equal(own, text[number]))
                    true += forward.sums[h * w][row * FRAMES : (row + 1) * FRAMES]
                columns = [token.column for token in image.prompt.tokens]
                expected, ours = true[:, :, columns].transpose(1, 2), channels[:, 1:-2].flatten(2)
                assert ours.shape == expected.shape and float(expected.std()) > 0
                assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_nan_in_the_text_of_i2vgen_finds_the_columns_that_are_read() -> None:
    """The columns ahead are the text, all of them, and as many keys lie behind as the layout says."""
    unet = i2vgen().unet
    seen: list[torch.Tensor] = []
    first = unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2")
    handle = first.to_k.register_forward_hook(lambda _m, _a, keys: seen.append(keys))
    given = {"fps": torch.tensor([8]), "image_latents": torch.randn(1, 4, FRAMES, 8, 6), "image_embeddings": torch.randn(1, 32)}
    with torch.no_grad():
        unet(torch.randn(1, 4, FRAMES, 8, 6), 5, encoder_hidden_states=torch.full((1, 77, 32), torch.nan), **given)
    handle.remove()
    assert seen[0].shape[:2] == (FRAMES, 77 + BEHIND) and columns_behind(unet, given) == BEHIND
    assert seen[0].isnan().any(-1).tolist() == [[True] * 77 + [False] * BEHIND] * FRAMES


def test_of_i2vgen_neither_concepts_nor_output_space_are_read() -> None:
    """Each by a sentence; the words are there all the same."""
    pipe = i2vgen()
    with trace(pipe, concepts=["sky"], output_space=True) as recording:
        pipe(PROMPT, Image.new("RGB", (64, 48)), 64, 48, **FROM_A_PICTURE)
    assert recording.heat_maps().words[2] == "house"
    assert "of videos" in str(recording.concept_failure) and "of videos" in str(recording.output_failure)


def test_a_processor_that_drops_the_picture_of_i2vgen_is_refused() -> None:
    """As many keys as the text has columns, where the picture's were to stand behind them."""
    pipe = i2vgen()

    class TextAlone(AttnProcessor2_0):
        def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **given: Any) -> Any:
            return super().__call__(attn, hidden_states, encoder_hidden_states[:, :77], **given)

    layer = pipe.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")
    layer.set_processor(TextAlone())
    with trace(pipe) as recording:
        pipe(PROMPT, Image.new("RGB", (64, 48)), 64, 48, **FROM_A_PICTURE)
    with pytest.raises(NothingRecorded, match=r"mid_block\.attentions\.0\..*attn2 attended from 6 rows to 77"):
        recording.heat_maps()
