"""Prompts that are longer than their encoder reads, where a pipeline tokenizes the whole of them first, to say what is lost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5T2VPipeline, Kandinsky5Transformer3DModel
from torch import Tensor

from daam_core import trace

from ..models import tokenizer as clip_tokenizer
from .detour_pipelines import Processor
from .transformer_pipelines import WIDTH, TextEncoder, qwen

LONG = "a red house and a green tree and two cats and a red house and two green cats"


class Named(TextEncoder):
    """It gives out its numbers by name."""

    def forward(self, input_ids: Tensor, **_: Any) -> Any:  # type: ignore[override]
        self.read = input_ids.tolist()
        out = super().forward(input_ids)
        return {"hidden_states": out.hidden_states, "pooler_output": out.pooler_output}


class Decoding(Processor):
    def decode(self, ids: Any) -> str:
        return str(self.tokenizer.decode(ids))


def kandinsky() -> Any:
    torch.manual_seed(0)
    words, clip = qwen(), clip_tokenizer()
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=16, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(1, 1, 2), visual_cond=False,
        attention_type="regular",
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler()
    parts = Named(len(words)), Decoding(words), Named(len(clip)), clip
    pipe: Any = Kandinsky5T2VPipeline(transformer, None, *parts, scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.prompt_template_encode_start_idx = len(words(pipe.prompt_template.split("{}")[0]).input_ids)
    return pipe


@pytest.mark.parametrize(
    ("prompts", "room"), [([LONG], 4), ([LONG], 9), ([LONG], 100), (["two cats", LONG], 9), (["two cats", LONG], 100)]
)
def test_words_stand_in_the_columns_that_the_encoder_read(prompts: list[str], room: int) -> None:
    """The last words of a long prompt stood over the columns of its first; where the template alone filled them, words of the
    prompt stood over it. Beside a longer prompt the pipeline cuts a short one to pieces, which have no words."""
    pipe = kandinsky()
    tokenizer = pipe.tokenizer.tokenizer
    with trace(pipe) as recording:
        pipe(
            prompts, guidance_scale=1.0, num_inference_steps=1, height=64, width=64, num_frames=1, output_type="latent",
            max_sequence_length=room, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    dropped = pipe.prompt_template_encode_start_idx
    for maps, ids, text in zip(recording, pipe.text_encoder.read, prompts, strict=True):
        read = ids[dropped:]
        if text != LONG and room < 10:
            assert maps.words[0] == "0"
            continue
        assert maps.prompt.length <= len(read) and maps.prompt.tokens  # padding is left out
        for token in maps.prompt.tokens:
            assert token.text.strip() == tokenizer.decode([read[token.column]]).strip()
        assert maps.prompt.tokens[0].column == 0 and maps.words[0] == text.split()[0]
        assert bool(maps.prompt.truncated) == (room < 10)
