"""Concepts of joint models through the host's own text encoders: which tokens they are, and a whole run to the maps."""

from __future__ import annotations

import importlib
from typing import Any

import graphs
import torch
import zoo
from encoders import pieces, text_encoder, word_columns
from graphs import listen, runs

asked = importlib.import_module("daam-lens.daam_core.prompt.concepts")


def _encoded_here(kind: str, model: str, encoder: str, frames: int = 0) -> Any:
    """The tokens of concepts are those of their words, each text encoded as a prompt of its own; a whole run, to the maps."""
    clip = text_encoder(kind)
    found = zoo.transformer(model)
    if clip is None or found is None:
        return "absent"
    network, channels, _, pooled = found
    concepts = asked.concepts_of("moon, a blue boat")
    recorded, told = listen(network, clip, concepts=concepts)
    positive = graphs.encode(told, zoo.PROMPT)
    carried = positive[0][1]["daam_lens_concepts"]
    assert not isinstance(carried, str), carried
    for text, words in (("a moon", ["moon"]), ("a blue boat", ["blue", "boat"]), ("a mushroom", ["mushroom"])):
        index = carried.labels.index(text.removeprefix("a ") if text != "a blue boat" else text)
        states = clip.encode_from_tokens(clip.tokenize(text))
        written = pieces(clip, text, encoder)
        shift = states.shape[1] - len(written)  # of a template that is cut off, or of an encoder that stands before
        wanted = [c + shift for word in words for c in word_columns(written, word, "".join(written).count(word) - 1)]
        own = [column for i, column in carried.columns() if i == index]
        assert set(wanted) <= set(own), (text, wanted, own)
        assert torch.allclose(carried.states[index, own], states[0, own], atol=1e-5), text
    latent = torch.zeros((1, channels, *((frames,) if frames else ()), 12, 20))
    given = [positive, graphs.encode(told, "blurry")]
    for cond in given:
        if pooled:
            cond[0][1]["pooled_output"] = torch.randn(1, pooled, generator=torch.Generator().manual_seed(3))
    plain = graphs.ksampler(network, *given, {"samples": latent}, scheduler="simple")
    heard = graphs.ksampler(recorded, *given, {"samples": latent}, scheduler="simple")
    assert torch.equal(plain, heard)
    assert runs.RECORDINGS.note(heard) == "", runs.RECORDINGS.note(heard)
    maps = runs.maps_of(heard)[0]
    assert maps.concepts == ["moon", "a blue boat"]
    assert bool(maps["moon"].isfinite().all())
    return None


def case_encoder_of_sd3() -> Any:
    return _encoded_here("sd3", "sd3_wide", "t5xxl")


def case_encoder_of_flux() -> Any:
    return _encoded_here("flux", "flux", "t5xxl")


def case_encoder_of_flux2() -> Any:
    return _encoded_here("flux2", "flux2", "qwen3_4b")


def case_encoder_of_chroma() -> Any:
    return _encoded_here("chroma", "chroma", "t5xxl")


def case_encoder_of_qwen_image() -> Any:
    return _encoded_here("qwen", "qwen", "qwen25_7b")


def case_encoder_of_lumina2() -> Any:
    return _encoded_here("lumina2", "lumina2", "gemma2_2b")


def case_encoder_of_z_image() -> Any:
    return _encoded_here("zimage", "zimage", "qwen3_4b")


def case_encoder_of_wan() -> Any:
    return _encoded_here("wan", "wan", "umt5xxl", frames=1)
