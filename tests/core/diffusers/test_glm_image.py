"""GLM-Image, whose transformer is given what the prompt quotes, letter by letter, and reference pictures as keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
from PIL import Image
from torch import Tensor
from transformers import ByT5Tokenizer

from daam_core import trace
from daam_core.errors import NothingRecorded, WordNotFound

from ..capture.attention_witness import Witness
from .transformer_pipelines import WIDTH, TextEncoder, spread

PROMPTS = ['a sign \u201cOPEN\u201d beside "Bar"', 'a shop "Zoë"', "a red house"]
KEYS = {"OPEN": range(1, 5), "Bar": range(7, 10), "Zoë": range(6, 10)}
"""Of eleven columns: padding, four letters, the end, padding, three letters, the end; the next prompt's are padded ahead."""


class Encoder(TextEncoder):
    dtype = torch.float32


@pytest.fixture(scope="module")
def pipe() -> Any:
    torch.manual_seed(0)
    transformer = GlmImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=WIDTH, time_embed_dim=16, condition_dim=8, prior_vq_quantizer_codebook_size=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, norm_num_groups=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    tokenizer = ByT5Tokenizer()
    return spread(
        GlmImagePipeline(
            tokenizer, None, Encoder(len(tokenizer)), None, vae, transformer, FlowMatchEulerDiscreteScheduler()
        )
    )  # fmt: skip


def paint(pipe: Any, prompts: list[str], **more: Any) -> Tensor:
    prior = torch.arange(24)[None].repeat(len(prompts), 1) % 8
    out = pipe(
        prompts, height=64, width=96, num_inference_steps=2, prior_token_ids=prior, output_type="latent",
        generator=torch.Generator().manual_seed(1), **more,
    )  # fmt: skip
    return torch.as_tensor(out.images)


def reference() -> dict[str, Any]:
    return {
        "image": [Image.new("RGB", (64, 32), (200, 30, 90))],
        "prior_token_image_ids": [torch.arange(8)],
        "source_image_grid_thw": [torch.tensor([[1, 2, 4]])],
    }


@pytest.mark.parametrize(("prompts", "references"), [(PROMPTS, False), (PROMPTS[:1], True)])
def test_what_the_prompt_quotes_has_maps(pipe: Any, prompts: list[str], references: bool) -> None:
    """Every picture was refused because of reference pictures that there were none of; words went by number."""
    more = reference() if references else {}
    before = paint(pipe, prompts, **more)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, prompts, **more), before)
    assert recording.failure is None
    maps = list(recording)
    assert [one.words for one in maps] == [["OPEN", "Bar"], ["Zoë"], []][: len(prompts)]
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe, prompts, **more)
    handle.remove()
    ahead = 8 if references else 0
    assert len(forwards) == 4 + references
    for image, word in enumerate(["Bar", "Zoë"][: len(prompts)]):
        total = torch.zeros(24, dtype=torch.float64)
        for first in forwards[references::2]:
            for index in (first, first + 1):
                keys = [ahead + key for key in KEYS[word]]
                total += witness.probabilities(index)[image].sum(0)[11:, keys].sum(-1)
        assert witness.calls[index][1].shape[-2] == ahead + 11 + 24
        error = (maps[image].heat_map(word).double().flatten() - total).abs().max() / maps[image].num_terms[4, 6]
        assert error < 1e-5 and float(total.std()) > 0
    with pytest.raises(WordNotFound, match="'sign' stands in the prompt, but the model that paints was not given it"):
        maps[0].heat_map("sign")


def test_what_the_text_attends_to_beside_a_reference_is_refused_for_what_it_is(pipe: Any) -> None:
    """It was said that the picture alone has queries; the text has some, too, and the reference has none."""
    with trace(pipe, relations="text->image") as recording:
        paint(pipe, PROMPTS[:1], **reference())
    with pytest.raises(NothingRecorded, match=r"in transformer_blocks\.0\.attn1 there are keys without queries, such as a ref"):
        recording.heat_maps()
