"""Chat templates around the prompt, pictures within it: each word stands at the column that the host's tokens put it at."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import comfy.text_encoders.qwen_vl
import encoders
import graphs
import torch
import zoo
from encoders import pieces, word_columns
from zoo import PROMPT

import nodes as host_nodes

columns = graphs.importlib.import_module("daam-lens.nodes.capture.context_alignment")
told = graphs.importlib.import_module("daam-lens.nodes.capture.prompt_tokens")


def _prompt(clip: Any, encode: Any) -> tuple[Any, int]:
    """(the prompt of what `encode` makes with Record's CLIP, its columns); the same numbers as without Record."""
    plain = encode(clip)
    heard = encode(graphs.listen(zoo.unet("sd15"), clip)[1])
    assert torch.equal(plain[0][0], heard[0][0])
    return columns.context_prompt(heard[0][1].get(told.KEY), heard[0][0]), heard[0][0].shape[1]


def _at(prompt: Any, word: str) -> list[int]:
    own = set(prompt.find(word).channels)
    return [token.column for token in prompt.tokens if token.channel in own]


def case_a_picture_in_the_prompt() -> None:
    """Qwen-Image-Edit's own encoder nodes: one entry, nine columns."""
    clip = encoders.text_encoder("qwen")
    network = type(clip.cond_stage_model.qwen25_7b.transformer)

    def seen(*_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(9, 48, generator=generator), torch.tensor([[1, 6, 6]])

    with mock.patch.object(network, "preprocess_embed", seen):
        for name in ("TextEncodeQwenImageEdit", "TextEncodeQwenImageEditPlus"):
            own = graphs.node("nodes_qwen", name)
            prompt, count = _prompt(clip, lambda one, own=own: own(one, PROMPT, None, torch.rand(1, 64, 64, 3))[0])
            assert prompt.length == count
            assert [word.text for word in prompt.words] == PROMPT.split(), [word.text for word in prompt.words]
            # The last words stand before "<|im_end|>\n<|im_start|>assistant\n", whatever stands before them.
            assert _at(prompt, "tree") == [count - 6], (_at(prompt, "tree"), count)
        assert "preprocess_embed" not in vars(clip.cond_stage_model.qwen25_7b.transformer)


def case_head_and_tail_are_dropped() -> Any:
    """LongCat-Image pads the text inside its template and drops both ends of it."""
    try:
        family = importlib.import_module("comfy.text_encoders.longcat_image")
    except ModuleNotFoundError:
        return "absent"
    with (
        torch.inference_mode(False),
        mock.patch.object(comfy.text_encoders.qwen_vl, "Qwen2VLVisionTransformer", torch.nn.Identity),
    ):
        clip = encoders._made(family.te(), family.LongCatImageTokenizer, qwen25_7b=encoders._LLAMA)
    prompt, count = _prompt(clip, lambda one: host_nodes.CLIPTextEncode().encode(one, PROMPT)[0])
    assert count == prompt.length == 512
    assert [word.text for word in prompt.words] == PROMPT.split(), [word.text for word in prompt.words][:12]
    written = pieces(clip, PROMPT, "qwen25_7b")
    head = len(
        clip.tokenizer.qwen25_7b.tokenizer(family.LongCatImageTokenizer.T2I_PREFIX, add_special_tokens=False)["input_ids"]
    )
    for word in ("house", "tree"):
        assert _at(prompt, word) == [column - head for column in word_columns(written, word)], word
    assert len(prompt.padding) == 512 - len(prompt.tokens)
    return None
