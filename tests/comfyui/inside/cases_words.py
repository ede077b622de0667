"""Words of transformers through their own text encoders: which columns of T5, Qwen, Gemma or UMT5 are which word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphs
import torch
import truth
import zoo
from encoders import pieces, text_encoder, word_columns
from graphs import encode, ksampler, listen, node, runs, same_words
from zoo import PROMPT, transformer

LONG = "a red house and a green tree beside blue boat on the sea under yellow moon with stars and blurry photo of mushroom"
_ENCODER = {"sd3": "t5xxl", "flux": "t5xxl", "chroma": "t5xxl", "qwen": "qwen25_7b", "lumina2": "gemma2_2b",
            "zimage": "qwen3_4b", "wan": "umt5xxl"}  # fmt: skip


def _expected(kind: str, clip: Any, text: str, word: str, context: int) -> list[int]:
    """Columns of a word's first place in the context, from the host's tokenizer alone."""
    written = pieces(clip, text, _ENCODER[kind])
    columns = word_columns(written, word)
    if kind == "qwen":  # the encoder drops the head of its template
        return [column - (len(written) - context) for column in columns]
    if kind == "sd3":  # CLIP's chunks stand before T5
        clips = context - len(written)
        return [*graphs.columns(clip, text, word), *(column + clips for column in columns)]
    return columns


def _check(
    kind: str,
    text: str = PROMPT,
    words: Sequence[str] = ("house", "tree"),
    model_kind: str = "",
    encoding: Any = encode,
    against: str = "",
    references: int = 0,
    images: int = 1,
    **options: Any,
) -> Any:
    """As `graphs.check`, for a transformer and its text encoder; `references` pictures stand behind the painted one."""
    built, clip = transformer(model_kind or kind), text_encoder(kind)
    if built is None or clip is None:
        return "absent"
    model, channels = built[:2]
    latent = zoo.empty(96, 160, images, channels)
    if kind in ("qwen", "wan"):
        latent["samples"] = latent["samples"].unsqueeze(2)

    def sample(watched: Any, encoder: Any) -> torch.Tensor:
        positive = encoding(encoder, text)
        for k in range(references):
            other = torch.randn(1, *latent["samples"].shape[1:-2], 8, 12, generator=torch.Generator().manual_seed(k))
            positive = node("nodes_edit_model", "ReferenceLatent")(positive, {"samples": other})[0]
        return ksampler(watched, positive, encode(encoder, against), latent, cfg=3.0, scheduler="simple")

    def true_maps(said: str, index: int) -> tuple[Any, truth.Maps, int]:
        context = encode(clip, said)[0][0].shape[1]
        first = -(-context // 32) * 32 if kind == "zimage" else context
        plain, true = truth.transformer_maps(
            model, lambda watched: sample(watched, clip), context, first, (6, 10), kind == "wan", index
        )
        return plain, true, context

    plain, true, context = true_maps(text, 0)
    before = graphs.state(model)
    heard = sample(*listen(model, clip, **options))
    assert torch.equal(plain, heard), "recording changed the picture"
    assert graphs.state(model) == before, "something was left on the model"
    found = runs.maps_of(heard)
    assert len(found) == images
    for image, maps in enumerate(found):
        same_words(maps.words, text)
        if kind in ("qwen", "zimage"):  # the template is nobody's text either
            assert maps.prompt.text == text, maps.prompt.text
        _same(kind, clip, maps, true, image, text, words, context)
    if options.get("negative"):
        _, true, context = true_maps(against, 1)
        same_words(found[0].negative.words, against)
        _same(kind, clip, found[0].negative, true, 0, against, against.split(), context)
    return found


def _same(kind: str, clip: Any, maps: Any, true: truth.Maps, image: int, text: str, words: Sequence[str], context: int) -> None:
    for word in words:
        expected = truth.at_size(true, image, _expected(kind, clip, text, word, context), maps.size)
        worst = float((maps.heat_map(word, maps.size).double() - expected).abs().max() / expected.abs().max())
        assert worst < 1e-5, f"{kind}, picture {image}, {word}: off by {worst:.2e}"


def _done(found: Any) -> str | None:
    return "absent" if isinstance(found, str) else None


def case_sd3() -> Any:
    """A word is read by CLIP and by T5: the heat of both."""
    return _done(_check("sd3", model_kind="sd3_wide"))


def case_sd3_with_a_long_prompt() -> Any:
    """More than one chunk of CLIP, and T5 beyond 77."""
    text = " ".join([*["very"] * 80, PROMPT])
    return _done(_check("sd3", text, model_kind="sd3_wide"))


def case_flux() -> Any:
    return _done(_check("flux", images=2))


def case_flux_with_two_texts() -> Any:
    """CLIPTextEncodeFlux: the picture attends to T5's text; CLIP's is only a summary."""

    def encoding(encoder: Any, text: str) -> Any:
        return node("nodes_flux", "CLIPTextEncodeFlux")(encoder, "something else", text, 3.5)[0]

    return _done(_check("flux", encoding=encoding))


def case_flux_with_a_reference_picture() -> None:
    """Flux Kontext: the reference's columns stand behind the picture's and count in the softmax."""
    found, without = _check("flux", references=1), _check("flux")
    assert not torch.allclose(found[0].heat_map("house"), without[0].heat_map("house"))


def case_flux_negative_words() -> Any:
    """The negative prompt's words, from its own call of the model."""
    return _done(_check("flux", against="blurry boat", negative=True))


def case_chroma() -> Any:
    return _done(_check("chroma"))


def case_qwen_image() -> Any:
    """Words of the template are nobody's words."""
    return _done(_check("qwen", images=2))


def case_qwen_image_edit() -> None:
    found, without = _check("qwen", references=2), _check("qwen")
    assert not torch.allclose(found[0].heat_map("house"), without[0].heat_map("house"))


def case_lumina2() -> Any:
    return _done(_check("lumina2"))


def case_z_image() -> Any:
    return _done(_check("zimage"))


def case_z_image_with_more_than_32_columns() -> Any:
    return _done(_check("zimage", LONG, ("house", "boat", "mushroom")))


def case_wan() -> Any:
    return _done(_check("wan"))


def case_sd3_without_t5() -> Any:
    """An SD3 checkpoint with CLIP alone: 77 columns, both encoders side by side."""
    clip = text_encoder("sd3_without_t5")
    model, channels = transformer("sd3_wide")[:2]

    def sample(watched: Any, encoder: Any) -> torch.Tensor:
        return ksampler(watched, encode(encoder, PROMPT), encode(encoder, ""), zoo.empty(96, 160, 1, channels), cfg=3.0)

    plain, true = truth.transformer_maps(model, lambda watched: sample(watched, clip), 77, 77, (6, 10), False)
    heard = sample(*listen(model, clip))
    assert torch.equal(plain, heard)
    (maps,) = runs.maps_of(heard)
    same_words(maps.words, PROMPT)
    graphs.equal([maps], true, clip, PROMPT, ["house", "tree"])


def case_words_told_afterwards() -> None:
    """Record without CLIP: the map node's own clip and text give the same words to every family."""
    tokens = graphs.importlib.import_module("daam-lens.nodes.capture.prompt_tokens").prompt_tokens
    text = "a yellow house and a blue tree"  # said nowhere else: an encoding that was heard before is remembered
    for kind in _ENCODER:
        built, clip = transformer("sd3_wide" if kind == "sd3" else kind), text_encoder(kind)
        if built is None:
            continue
        model, channels = built[:2]
        latent = zoo.empty(96, 160, 1, channels)
        if kind in ("qwen", "wan"):
            latent["samples"] = latent["samples"].unsqueeze(2)

        def sample(given: Any, clip: Any = clip, model: Any = model, latent: Any = latent) -> torch.Tensor:
            heard, told = listen(model, given)
            said = encode(told or clip, text)
            return ksampler(heard, said, said, latent, cfg=1.0, scheduler="simple")

        blind = sample(None)
        assert "its words are not known" in graphs.refusal(blind), kind
        (afterwards,) = runs.maps_of(blind, tokens(clip, text))
        (at_once,) = runs.maps_of(sample(clip))
        same_words(afterwards.words, text)
        assert afterwards.words == at_once.words, kind
        assert torch.equal(afterwards.heat_map("house"), at_once.heat_map("house")), kind


def case_steps_layers_and_heads_of_a_transformer() -> None:
    """What is kept apart adds up to the whole."""
    maps = _check("flux", detail="layers + steps", heads=True)[0]
    whole = maps.heat_map("house", maps.size)
    for parts in (
        [maps.select(steps=[i]) for i in range(maps.steps)],
        [maps.select(layers=[i]) for i in range(len(maps.layers))],
    ):
        assert len(parts) > 1
        added = sum(part.heat_map("house", maps.size) for part in parts)
        torch.testing.assert_close(added, whole, rtol=5e-3, atol=5e-3 * float(whole.max()))
