"""Which words a UNet's columns are: of the pipeline's own tokenizers, of embeddings made elsewhere, of two prompts at once."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LDMTextToImagePipeline, StableDiffusionInpaintPipeline
from PIL import Image
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from daam_core import trace
from daam_core.errors import NothingRecorded, WordNotFound

from ..models import PROMPT, autoencoder, paint, pipeline, scheduler, tokenizer, unet
from .unet_witness import Witness, assert_same

WORDS = ["a", "red", "house", "and", "a#2", "green", "tree"]


def test_embeddings_of_encode_prompt_have_its_words() -> None:
    """Encoded by hand inside the trace, and given back as `prompt_embeds`, repeated for two pictures."""
    pipe = pipeline("small")
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        embeds, negative = pipe.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt="a star")
        paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=negative, num_images_per_prompt=2)
    maps = recording.heat_maps(1)
    assert maps.words == WORDS
    assert maps.negative is not None and maps.negative.words == ["a", "star"]
    sums = [forward.sums for forward in witness.forwards]
    assert_same(maps.sides["prompt"], {n: sums[0][n][3] + sums[1][n][3] for n in sums[0]})
    assert_same(maps.sides["negative"], {n: sums[0][n][1] + sums[1][n][1] for n in sums[0]})


def long_embeds(pipe: Any, text: str) -> Tensor:
    """Embeddings as compel and sd_embed make them: 75 tokens between start and end in each 77 columns, joined."""
    ids = pipe.tokenizer(text, add_special_tokens=False).input_ids
    start, end = pipe.tokenizer.bos_token_id, pipe.tokenizer.eos_token_id
    chunks = [ids[i : i + 75] for i in range(0, len(ids), 75)]
    rows = torch.tensor([[start, *chunk, end, *[end] * (75 - len(chunk))] for chunk in chunks])
    return pipe.text_encoder(rows)[0].detach().flatten(0, 1)[None] * 1.1  # type: ignore[no-any-return]


def test_embeddings_made_elsewhere_have_the_words_that_are_given_for_them() -> None:
    pipe = pipeline("small")
    text = "a red house and a green tree, " * 10 + "a purple cat"
    embeds = long_embeds(pipe, text)
    assert embeds.shape[1] == 154
    witness = Witness(pipe.unet)
    with trace(pipe, prompts=text) as recording:
        paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=torch.zeros_like(embeds))
    maps = recording.heat_maps()
    assert maps.words[-3:] == ["a#21", "purple", "cat"]
    assert_same(maps.sides["prompt"], witness.of(embeds[0]))
    with trace(pipe, prompts=text * 3) as recording:
        paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=torch.zeros_like(embeds))
    with pytest.raises(NothingRecorded, match=r"`prompts=` takes \d+ columns, and the embeddings have 154"):
        recording.heat_maps()


def test_texts_given_for_embeddings_are_those_of_the_pictures_made_of_each() -> None:
    """Two texts for four pictures, two of each: the second picture, of the first text, had the second text's words."""
    pipe, texts = pipeline("small"), ["a red house", "two green cats"]
    embeds = pipe.encode_prompt(texts, "cpu", 1, False)[0]
    options = {"guidance_scale": 1.0, "output_type": "latent"}
    with trace(pipe, prompts=texts) as recording:
        paint(pipe, None, prompt_embeds=embeds, num_images_per_prompt=2, **options)
    assert [maps.words for maps in recording] == [["a", "red", "house"]] * 2 + [["two", "green", "cats"]] * 2
    with trace(pipe, prompts=[*texts, "a tree"]) as recording:
        paint(pipe, None, prompt_embeds=embeds, num_images_per_prompt=2, **options)
    with pytest.raises(NothingRecorded, match=r"`prompts=` are 3 texts, and the embeddings are those of 4 pictures"):
        recording.heat_maps()
    with trace(pipe, prompts=texts) as recording:
        paint(pipe, None, prompt_embeds=torch.cat([embeds, embeds]), **options)
    with pytest.raises(NothingRecorded, match=r"`prompts=` are 2 texts, and the embeddings are those of 4 pictures"):
        recording.heat_maps()


def test_both_prompts_of_sdxl_give_their_words() -> None:
    """Two encoders' features of one column stand side by side: a word of either is that column."""
    pipe = pipeline("sdxl")
    text = pipe.encode_prompt(PROMPT, "a blue star in the dark blue sky at night")[0][0]
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        paint(pipe, prompt_2="a blue star in the dark blue sky at night")
    maps = recording.heat_maps()
    assert maps.negative is not None and maps.negative.words == []  # zeros stand for it: no tokenizer reads it
    second = ["blue", "star", "in", "the", "dark", "blue#2", "sky", "at", "night"]
    assert maps.words == [*WORDS, *second]  # "a" stands at the same place in both
    assert maps.prompt.find("red").channels == maps.prompt.find("blue").channels == (2,)
    true = witness.of(text)
    assert_same(maps.sides["prompt"], true, range(1, 13))  # the longer one has 12 tokens
    assert maps.prompt.end == (13,)


def test_a_phrase_behind_the_last_column_was_cut_off() -> None:
    pipe = pipeline("small")
    with trace(pipe) as recording:
        paint(pipe, "a red house and a green tree, " * 12 + "a purple cat")
    with pytest.raises(WordNotFound, match="'purple cat' was cut off"):
        recording.heat_maps().heat_map("purple cat")


class LeftPadded:
    """A tokenizer of Kolors' kind: padding on the left, two tokens ahead of the text, no bos, no length of its own."""

    model_max_length = int(1e30)
    bos_token_id = eos_token_id = None
    all_special_ids = (0, 1, 2)

    def __init__(self) -> None:
        self.pieces = ["<pad>", "[gMASK]", "sop"]

    def __call__(self, texts: Any, max_length: int, **_: Any) -> Any:
        from transformers import BatchEncoding

        ids = []
        for text in [texts] if isinstance(texts, str) else texts:
            pieces = ["▁" + word for word in text.split()]
            self.pieces += [piece for piece in pieces if piece not in self.pieces]
            own = [1, 2, *map(self.pieces.index, pieces)]
            ids.append([0] * (max_length - len(own)) + own)
        rows = torch.tensor(ids)
        places = torch.arange(max_length).expand_as(rows)
        return BatchEncoding({"input_ids": rows, "attention_mask": (rows > 0).long(), "position_ids": places})

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[i] for i in ids]

    def get_added_vocab(self) -> dict[str, int]:
        return {}


class Layers(nn.Module):
    """An encoder whose hidden states are `[columns, texts, dim]`, as ChatGLM's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 32)
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, input_ids: Tensor, position_ids: Tensor, **_: Any) -> Any:
        from types import SimpleNamespace

        x = (self.embedding(input_ids) + position_ids[..., None].sin()).transpose(0, 1)
        return SimpleNamespace(hidden_states=[x, x, x])


def test_kolors_has_its_words_at_the_right_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokenizer's `model_max_length` is 1e30: 0.1.0 stopped at an OverflowError."""
    stub = ModuleType("sentencepiece")  # its own tokenizer wants it, ours does not
    stub.SentencePieceProcessor = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentencepiece", stub)
    kolors = importlib.import_module("diffusers.pipelines.kolors.pipeline_kolors")
    torch.manual_seed(0)
    model = unet("sdxl")
    model.register_to_config(encoder_hid_dim_type=None)
    model = type(model).from_config({**model.config, "cross_attention_dim": 32})
    pipe = kolors.KolorsPipeline(autoencoder(), Layers(), LeftPadded(), model, scheduler())
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        text = pipe.encode_prompt(PROMPT, "cpu", max_sequence_length=256)[0][0]
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        paint(pipe)
    maps = recording.heat_maps()
    assert maps.words == WORDS
    assert [token.column for token in maps.prompt.tokens] == list(range(249, 256))
    assert maps.prompt.padding == tuple(range(247)) and maps.prompt.start == (247, 248)
    assert_same(maps.sides["prompt"], witness.of(text))


def test_latent_diffusion_is_read_from_its_encoder() -> None:
    """No `encode_prompt`, no CLIP: the encoder is called `bert`, the negative prompt comes first."""
    torch.manual_seed(0)
    tok = tokenizer()
    config = BertConfig(vocab_size=len(tok), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=77)  # fmt: skip
    bert = BertModel(config).eval()
    pipe = LDMTextToImagePipeline(autoencoder(), bert, tok, unet("small"), scheduler())
    pipe.set_progress_bar_config(disable=True)
    witness = Witness(pipe.unet)
    with trace(pipe, negative=True) as recording:
        paint(pipe, guidance_scale=5.0)
    maps = recording.heat_maps()
    assert maps.words == WORDS and maps.negative is not None
    first, second = (forward.sums for forward in witness.forwards)
    assert_same(maps.sides["prompt"], {n: first[n][1] + second[n][1] for n in first})


def test_a_crop_is_put_back_at_its_place() -> None:
    """`padding_mask_crop` paints a part of the picture at full size: its maps lie there, and are nothing elsewhere."""
    base = pipeline("small")
    parts = {k: v for k, v in base.components.items() if k != "image_encoder"}
    pipe = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.fromarray(np.full((128, 128, 3), 90, np.uint8))
    mask = np.zeros((128, 128), np.uint8)
    mask[80:112, 16:48] = 255
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]
    witness = Witness(pipe.unet)
    options: dict[str, Any] = {"image": picture, "mask_image": Image.fromarray(mask), "num_inference_steps": 2,
                               "height": 64, "width": 64, "padding_mask_crop": 16}  # fmt: skip
    with trace(pipe) as recording:
        image = pipe(PROMPT, **options, generator=torch.Generator().manual_seed(1)).images[0]
    maps = recording.heat_maps()
    assert maps.size == (128, 128) == image.size
    true = witness.of(text)[64][:, 3].reshape(8, 8).float()  # 64 x 64 pixels around the mask, from (64, 0) on
    placed = torch.zeros(16, 16)
    placed[8:16, 0:8] = true
    assert torch.allclose(maps.sides["prompt"].sums[16, 16][3], placed, rtol=1e-5, atol=1e-6)
    with trace(pipe) as recording:
        pipe(PROMPT, **options | {"width": 128, "height": 32})
    with pytest.raises(NothingRecorded, match="whose shape is not that of 128 x 32"):
        recording.heat_maps()
