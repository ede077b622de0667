"""Texts that other nodes join or lengthen after they were encoded: each word's map is that of its own columns."""

from __future__ import annotations

from typing import Any

import graphs
import torch
import truth
import zoo
from cases_words import _ENCODER
from encoders import pieces, text_encoder, word_columns
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, transformer

import nodes as host_nodes

OTHER = "a blue boat"
told = graphs.importlib.import_module("daam-lens.nodes.capture.prompt_tokens")


def _joined(encoder: Any) -> Any:
    return host_nodes.ConditioningConcat().concat(encode(encoder, PROMPT), encode(encoder, OTHER))[0]


class _Style:
    """A style model: 400 columns of a picture, more than CLIP's 77 and T5's 256 together lack."""

    def __init__(self, width: int) -> None:
        self._width = width

    def get_cond(self, _picture: Any) -> torch.Tensor:
        return torch.randn(1, 400, self._width, generator=torch.Generator().manual_seed(3))


def _styled(encoder: Any) -> Any:
    positive = encode(encoder, PROMPT)
    return host_nodes.StyleModelApply().apply_stylemodel(positive, _Style(positive[0][0].shape[-1]), None, 1.0, "multiply")[0]


def _columns(kind: str, clip: Any, text: str, word: str, at: int) -> list[int]:
    """Of a word in an encoding that begins at column `at`, from the host's tokenizer alone."""
    written = pieces(clip, text, _ENCODER[kind])
    own = word_columns(written, word)
    alone = encode(clip, text)[0][0].shape[1]
    if kind == "qwen":  # its encoder drops the head of the template
        own = [column - (len(written) - alone) for column in own]
    if kind == "sd3":
        own = [*graphs.columns(clip, text, word), *(column + alone - len(written) for column in own)]
    return [at + column for column in own]


def _check(kind: str, encoding: Any, words: dict[str, str]) -> list[str]:
    """Latents with and without Record, and the map of each word of each text against the equation's. What was compared."""
    built, clip = transformer("sd3_wide" if kind == "sd3" else kind), text_encoder(kind)
    if built is None or clip is None:
        return []
    model, channels = built[:2]
    latent = zoo.empty(96, 160, 1, channels)
    if kind in ("qwen", "wan"):
        latent["samples"] = latent["samples"].unsqueeze(2)

    def sample(watched: Any, encoder: Any) -> torch.Tensor:
        return ksampler(watched, encoding(encoder), encode(encoder, ""), latent, cfg=3.0, scheduler="simple")

    starts = {PROMPT: 0, OTHER: encode(clip, PROMPT)[0][0].shape[1]}
    columns = encoding(clip)[0][0].shape[1]

    def true_maps(columns: int) -> tuple[torch.Tensor, truth.Maps]:
        first = -(-columns // 32) * 32 if kind == "zimage" else columns
        return truth.transformer_maps(model, lambda watched: sample(watched, clip), columns, first, (6, 10), kind == "wan")

    plain, true = true_maps(columns)
    if not true:  # Lumina 2 in ComfyUI 0.3 leaves out all behind the first text
        plain, true = true_maps(starts[OTHER])
        words = {word: text for word, text in words.items() if text == PROMPT}
    heard = sample(*listen(model, clip))
    assert torch.equal(plain, heard), f"{kind}: recording changed the picture"
    (maps,) = runs.maps_of(heard)
    for word, text in words.items():
        expected = truth.at_size(true, 0, _columns(kind, clip, text, word, starts[text]), maps.size)
        worst = float((maps.heat_map(word, maps.size).double() - expected).abs().max() / expected.abs().max())
        assert worst < 1e-5, f"{kind}, {word}: off by {worst:.2e}"
    return [f"{kind}: {word}" for word in words]


def case_two_texts_joined() -> int:
    """ConditioningConcat in every family: of Flux and of chat models the words stood where SD3 has them, or not at all."""
    found = [_check(kind, _joined, {"house": PROMPT, "tree": PROMPT, "boat": OTHER}) for kind in _ENCODER]
    assert sum(map(bool, found)) >= 6
    return sum(map(len, found))


def case_a_style_model_s_picture_behind_the_text() -> int:
    """Flux Redux: columns of a picture are nobody's words."""
    return sum(len(_check(kind, _styled, {"house": PROMPT, "tree": PROMPT})) for kind in ("flux", "chroma", "qwen", "sd3"))


def case_one_of_two_joined_texts_is_told_afterwards() -> None:
    """Record without CLIP: the columns of both texts are not those of one."""
    clip, text = zoo.clip("sd15"), "a violet snail on grass"  # said nowhere else: encodings are remembered
    positive = host_nodes.ConditioningConcat().concat(encode(clip, text), encode(clip, "a golden pig"))[0]
    heard = ksampler(listen(zoo.unet("sd15"), None)[0], positive, encode(clip, ""), zoo.empty(64, 64))
    said = ""
    try:
        runs.maps_of(heard, told.prompt_tokens(clip, text))
    except graphs.errors.BadArgument as error:
        said = str(error)
    assert "a text of 154 columns, and this one has 77" in said and "ConditioningConcat" in said, said
