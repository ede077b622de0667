"""Prompts that their encoder is not given as they were typed: longer than it reads, or cleaned before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5T2VPipeline, Kandinsky5Transformer3DModel
from torch import Tensor

from daam_core import trace
from daam_core.capture.families import FAMILIES
from daam_core.capture.family import Family
from daam_core.capture.tokenizer_hook import Tokenized
from daam_core.diffusers.encoded_prompts import EncodedPrompts, Encoding
from daam_core.errors import BadArgument

from ..models import tokenizer as clip_tokenizer
from .detour_pipelines import Processor
from .pipeline_cases import CASES, paint
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


def test_a_prompt_longer_than_clip_reads_keeps_its_words_in_both_encoders() -> None:
    """Stable Diffusion 3 tokenizes the whole of it, too, to say what is lost: that was taken for CLIP's columns, and the words
    of every prompt beyond 77 tokens went by number."""
    long = " ".join(["a red house and"] * 30) + " two cats"
    case, pipe = CASES["sd3"], CASES["sd3"].make()
    with trace(pipe) as recording:
        paint(pipe, case, [long, "two cats"], None, num_inference_steps=1, guidance_scale=1.0)
    maps = list(recording)
    assert maps[0].words[:4] == ["a", "red", "house", "and"] and maps[0].prompt.length == 77 + 20
    cut = maps[0].prompt.truncated
    assert cut[-3:] == ("and", "two", "cats") and len(cut) == 4 * 30 + 2 - 75  # what stands earlier, too, counts once more
    assert maps[1].words == ["two", "cats"]
    ids = [*pipe.tokenizer(long).input_ids[:76], -1, *pipe.tokenizer_3(long).input_ids[:19], -1]
    for token in maps[0].prompt.tokens:
        tokenizer = pipe.tokenizer if token.column < 77 else pipe.tokenizer_3
        assert spelled(tokenizer, ids[token.column]) == token.text


def test_a_prompt_that_its_pipeline_cuts_behind_keeps_the_words_before() -> None:
    """Qwen-Image encodes up to 1024 tokens and gives its transformer 512: the words of a longer prompt went by number."""
    case, pipe = CASES["qwen"], CASES["qwen"].make()
    pipe.prompt_template_encode_start_idx = len(pipe.tokenizer(pipe.prompt_template_encode.split("{}")[0]).input_ids)
    with trace(pipe) as recording:
        for room in (100, 12):
            options = {"max_sequence_length": room, "num_inference_steps": 1, "true_cfg_scale": 1.0}
            paint(pipe, case, [LONG, "two cats"], None, **options)
    for image, words in enumerate((["a", "red", "house"], ["two", "cats"])):
        whole, cut = (recording.heat_maps(image, generation=run).prompt for run in (0, 1))
        assert cut.labels[: len(words)] == words and cut.tokens == whole.tokens[: len(cut.tokens)]
        assert ("cats" in cut.truncated) == (image == 0)
    with pytest.raises(BadArgument, match=r"no generation slice\(0, 1, None\): 2 were recorded"):
        recording.heat_maps(generation=slice(0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("moved", [True, False])
def test_words_stand_where_a_pipeline_moved_them_ahead_of_the_padding(moved: bool) -> None:
    """JoyImage packs its texts, except beside pictures; where its tokenizer pads on the left, a short prompt's words of a batch
    had the columns of zeros behind them."""
    tokenizer, texts = qwen(), [LONG, "two cats"]
    tokenizer.padding_side = "left"
    read = tokenizer(texts, padding=True)
    tokens = [
        Tokenized("tokenizer", tokenizer, text, tuple(ids), tuple(map(bool, mask)), True)
        for text, ids, mask in zip(texts, read.input_ids, read.attention_mask, strict=True)
    ]
    rows = torch.rand(2, len(tokens[0].ids), 4)
    padding = tokens[1].mask.count(False)
    rows[1, :padding] = 0
    rows[1] = rows[1].roll(-padding, 0) if moved else rows[1]
    encoded = EncodedPrompts()
    encoded.add("prompt", list(rows), Encoding({"prompt": texts}, [list(rows)], tokens), "prompt")
    prompts = [encoded.prompt(row, family("JoyImage"), (rows.shape[1],)) for row in encoded.rows]
    assert prompts[0].tokens[0].column == 0 and prompts[1].words[0].text == "two"
    assert prompts[1].tokens[0].column == (0 if moved else padding)


def family(name: str) -> Family:
    return next(one for one in FAMILIES if one.name == name)


def spelled(tokenizer: Any, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token)).replace("</w>", "").replace("▁", "")


CLEANED = {
    "a red &amp; green house": ("a red & green house", ["a", "red", "&", "green", "house"]),
    "two “red” cats’ house": ('two "red" cats\' house', ["two", '"', "red", '"#2', "cats", "'", "house"]),
    "a red (house) \u2014 and a tree": ("a red house and a tree", ["a", "red", "house", "and", "a#2", "tree"]),
    "a (green) house": ("a green house!", ["0", "1"]),
    "a [green] house": ("a green, house", ["0", "1"]),
}
"""What is typed, what a pipeline makes of it, and the words; of two that are alike but for their signs, none are known."""


def test_a_prompt_that_its_pipeline_cleans_has_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wan and others make quotes straight and undo HTML, PixArt and others take signs out: the words went by number."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan.prompt_clean", lambda text: CLEANED.get(text, (text,))[0])
    case, pipe = CASES["wan"], CASES["wan"].make()
    with trace(pipe) as recording:
        paint(pipe, case, list(CLEANED), None, num_inference_steps=1, num_frames=1, guidance_scale=1.0)
    for maps, (cleaned, words) in zip(recording, CLEANED.values(), strict=True):
        assert maps.words[: len(words)] == words
        ids = pipe.tokenizer(cleaned).input_ids
        for token in maps.prompt.tokens if words[0] != "0" else ():
            assert spelled(pipe.tokenizer, ids[token.column]) == token.text
