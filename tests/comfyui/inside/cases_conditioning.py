"""What ComfyUI's conditioning nodes do to prompts: long ones, weights, embeddings, combinations, areas, schedules."""

from __future__ import annotations

from typing import Any

import comfy.sdxl_clip
import graphs
import torch
import truth
import zoo
from graphs import check, encode, ksampler, listen, node, runs, same_words
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes

LONG = " ".join(f"{w} {n}" for n in ("house", "tree", "boat", "star", "moon", "fish") for w in ("red", "blue", "green") * 5)


def _sampled(text: str, negative: str = "") -> Any:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, text), encode(encoder, negative), empty(128, 128))

    return sample


def _plain_and_heard(sample: Any, kind: str = "sd15", **options: Any) -> Any:
    """Maps of a sampling whose latents do not change by recording."""
    plain = sample(unet(kind), clip(kind))
    before = graphs.state(unet(kind))
    heard = sample(*listen(unet(kind), clip(kind), **options))
    assert torch.equal(plain, heard), "recording changed the picture"
    assert graphs.state(unet(kind)) == before
    return runs.maps_of(heard)


def case_231_tokens_beside_77() -> None:
    """180 words are three chunks; the short negative prompt is repeated beside it."""
    assert len(LONG.split()) == 180
    found = check(unet("sd15"), clip("sd15"), _sampled(LONG), LONG, ["house", "boat"])
    same_words(found[0].words, LONG)
    assert found[0].prompt.length == 231


def case_a_short_prompt_beside_a_long_negative_one() -> None:
    """Here the prompt's own 77 columns are repeated: their sums are folded together."""
    sample = _sampled(PROMPT, LONG)
    found = _plain_and_heard(sample)
    _, true = truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")))
    once = graphs.columns(clip("sd15"), PROMPT, "house")
    repeated = [column + 77 * k for k in range(next(iter(true.values())).shape[1] // 77) for column in once]
    expected = truth.at_size(true, 0, repeated, (128, 128))
    ours = found[0].heat_map("house", (128, 128)).double()
    assert float((ours - expected).abs().max() / expected.max()) < 1e-5


def case_weights() -> None:
    """(house:1.3) is the word house, of weight 1.3."""
    text = "a red (house:1.3) and a (green tree)"
    found = check(unet("sd15"), clip("sd15"), _sampled(text), PROMPT, [])
    same_words(found[0].words, PROMPT)
    assert abs(found[0].prompt.find("house").weight - 1.3) < 1e-6
    _, true = truth.unet_maps(unet("sd15"), lambda m: _sampled(text)(m, clip("sd15")))
    graphs.equal(found, true, clip("sd15"), text, ["house", "tree"])


def case_repeated_words_and_punctuation() -> None:
    found = _plain_and_heard(_sampled("a cat, a dog's cat."))
    assert found[0].words == ["a", "cat", ",", "a#2", "dog's", "cat#2", "."], found[0].words
    assert not torch.equal(found[0].heat_map("cat"), found[0].heat_map("cat#2"))


def case_empty_prompt() -> None:
    found = _plain_and_heard(_sampled(""))
    assert found[0].words == []
    assert float(found[0].heat_map("<start>").sum()) > 0


def case_sdxl_with_two_texts() -> None:
    """CLIPTextEncodeSDXL reads one text with each encoder."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        positive = node("nodes_clip_sdxl", "CLIPTextEncodeSDXL")(encoder, 128, 128, 0, 0, 128, 128, PROMPT, PROMPT)[0]
        return ksampler(model, positive, encode(encoder, ""), empty(128, 128))

    same_words(check(unet("sdxl"), clip("sdxl"), sample, PROMPT)[0].words, PROMPT)


def case_clip_skip_after_record() -> None:
    def sample(model: Any, encoder: Any) -> torch.Tensor:
        skipped = host_nodes.CLIPSetLastLayer().set_last_layer(encoder, -2)[0]
        return ksampler(model, encode(skipped, PROMPT), encode(skipped, ""), empty(128, 128))

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_concat() -> None:
    """ConditioningConcat keeps the dictionary of one side; the other side's words are found by their numbers."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        both = host_nodes.ConditioningConcat().concat(encode(encoder, PROMPT), encode(encoder, "a blue boat"))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    found = _plain_and_heard(sample)
    assert found[0].words == [*PROMPT.replace("a green", "a#2 green").split(), "a#3", "blue", "boat"], found[0].words
    _, true = truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")))
    expected = truth.at_size(true, 0, [77 + c for c in graphs.columns(clip("sd15"), "a blue boat", "boat")], (128, 128))
    ours = found[0].heat_map("boat", (128, 128)).double()
    assert float((ours - expected).abs().max() / expected.max()) < 1e-5


def case_combine() -> None:
    """Two prompts that are predicted apart: both sides' words, each from its own rows."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), encode(encoder, "a blue boat"))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    found = _plain_and_heard(sample)
    assert found[0].words[-1] == "boat"
    for nth, (text, word) in enumerate(((PROMPT, "tree"), ("a blue boat", "boat"))):
        true = _part(sample, nth, 2)
        graphs.equal(found, true, clip("sd15"), text, [word])


def _part(sample: Any, nth: int, count: int) -> truth.Maps:
    """The equation's maps of the nth of several prompts: ComfyUI batches them last to first."""
    calls = truth.Calls(nth=count - 1 - nth)
    return truth.unet_maps(unet("sd15"), lambda m: sample(m, clip("sd15")), calls=calls)[1]


def case_average() -> None:
    """A mix of two prompts has the words of the one it is poured into."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        mix = host_nodes.ConditioningAverage().addWeighted(encode(encoder, PROMPT), encode(encoder, "a blue boat"), 0.7)[0]
        return ksampler(model, mix, encode(encoder, ""), empty(128, 128))

    check(unet("sd15"), clip("sd15"), sample, PROMPT)


def case_area() -> None:
    """A prompt of the right half has no heat in the left one, and the negative prompt's copy for it is not heard."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        right = host_nodes.ConditioningSetArea().append(encode(encoder, "a blue boat"), 64, 128, 64, 0, 1.0)[0]
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), right)[0]
        return ksampler(model, both, encode(encoder, "blurry"), empty(128, 128))

    found = _plain_and_heard(sample, negative=True)[0]
    boat = found.heat_map("boat")
    assert boat.shape == (16, 16)
    assert float(boat[:, :7].abs().max()) < 0.1 * float(boat[:, 9:].max())
    assert float(found.sums[16, 16][list(found.prompt.find("boat").channels)][..., :8].abs().max()) == 0
    assert float(found.heat_map("house")[:, :8].max()) > 0
    same_words(found.negative.words, "blurry")


def case_area_in_per_cent_beyond_the_grid() -> None:
    """Odd sizes and places that fall between cells."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        part = host_nodes.ConditioningSetAreaPercentage().append(encode(encoder, "a blue boat"), 0.37, 0.61, 0.39, 0.63, 1.0)[0]
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), part)[0]
        return ksampler(model, both, encode(encoder, ""), empty(136, 104))

    found = _plain_and_heard(sample)[0]
    assert found.heat_map("boat", found.size).shape == (136, 104)


def case_mask() -> None:
    """A prompt that counts only through a mask has heat only there."""
    mask = torch.zeros(1, 128, 128)
    mask[:, :64] = 1

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        top = host_nodes.ConditioningSetMask().append(encode(encoder, "a blue boat"), mask, "default", 1.0)[0]
        both = host_nodes.ConditioningCombine().combine(encode(encoder, PROMPT), top)[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    found = _plain_and_heard(sample)[0]
    boat = found.sums[16, 16][list(found.prompt.find("boat").channels)].sum(0)
    assert float(boat[9:].abs().max()) == 0
    assert float(boat[:7].min()) > 0


def case_timestep_range() -> None:
    """A prompt for the second half of the run has empty first steps."""
    ranged = host_nodes.ConditioningSetTimestepRange()

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        early = ranged.set_range(encode(encoder, PROMPT), 0.0, 0.5)[0]
        late = ranged.set_range(encode(encoder, "a blue boat"), 0.5, 1.0)[0]
        both = host_nodes.ConditioningCombine().combine(early, late)[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128), steps=4)

    found = _plain_and_heard(sample, detail="steps")[0]
    heat = [float(found.select(steps=[step]).heat_map("boat").abs().sum()) for step in range(found.steps)]
    assert heat[0] == 0
    assert heat[-1] > 0
    assert float(found.select(steps=[0]).heat_map("house").sum()) > 0


def case_embedding_made_of_vectors() -> None:
    """A textual inversion of three vectors is one word."""
    vectors = [torch.randn(64, generator=torch.Generator().manual_seed(k)) for k in range(3)]

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        tokens = encoder.tokenize("a red house")
        chunk = tokens["l"][0]
        tokens["l"][0] = [*chunk[:4], *[(v, 1.0) for v in vectors], *chunk[4:-3]]
        positive = encoder.encode_from_tokens_scheduled(tokens)
        return ksampler(model, positive, encode(encoder, ""), empty(128, 128))

    found = _plain_and_heard(sample)[0]
    assert found.words == ["a", "red", "house", "embedding"], found.words
    assert len(found.prompt.find("embedding").channels) == 3


def case_an_encoder_node_that_drops_the_dictionary() -> None:
    """Old packs call `encode_from_tokens(return_pooled=True)`: the words are still found."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        cond, pooled = encoder.encode_from_tokens(encoder.tokenize(PROMPT), return_pooled=True)
        return ksampler(model, [[cond, {"pooled_output": pooled}]], encode(encoder, ""), empty(128, 128))

    same_words(check(unet("sd15"), clip("sd15"), sample, PROMPT)[0].words, PROMPT)


def case_an_encoder_node_that_exchanges_a_column() -> None:
    """As PhotoMaker does with the word of a person, and drops the dictionary, too."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        cond, pooled = encoder.encode_from_tokens(encoder.tokenize(PROMPT), return_pooled=True)
        changed = cond.clone()
        changed[:, 3] += 1.5
        return ksampler(model, [[changed, {"pooled_output": pooled}]], encode(encoder, ""), empty(64, 64))

    for kind in ("sd15", "sdxl"):
        same_words(check(unet(kind), clip(kind), sample, PROMPT)[0].words, PROMPT)


def case_an_encoder_node_that_asks_for_the_model() -> None:
    """ADV_CLIP_emb and its copies ask the encoder's class, and encode SDXL's two texts one by one."""

    def encoded(told: Any, text: str) -> Any:
        tokens = told.tokenize(text)
        if not isinstance(told.cond_stage_model, comfy.sdxl_clip.SDXLClipModel):
            return [[torch.zeros(1, 77, 128), {"pooled_output": torch.zeros(1, 64)}]]
        told.load_model()
        low, _ = told.cond_stage_model.clip_l.encode_token_weights(tokens["l"])
        high, pooled = told.cond_stage_model.clip_g.encode_token_weights(tokens["g"])
        return [[torch.cat([low, high], -1), {"pooled_output": pooled}]]

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        # A text of its own: of one that another case encoded, the words are known again by its rows.
        return ksampler(model, encoded(encoder, "a yellow star above a pink car"), encoded(encoder, ""), empty(128, 128))

    plain = sample(unet("sdxl"), clip("sdxl"))
    heard = sample(*listen(unet("sdxl"), clip("sdxl")))
    assert torch.equal(plain, heard), "recording changed the picture"
    assert "its words are not known" in graphs.refusal(heard)


def case_without_clip_the_words_are_told_afterwards() -> None:
    """Record without CLIP: Heat Maps asks for clip and text, and then equals a recording that knew the words."""
    model, _ = listen(unet("sd15"), None)
    blind = zoo.clip("sd15")
    text = "a purple snail on grass"
    sampled = ksampler(model, encode(blind, text), encode(blind, ""), empty(128, 128))
    assert "its words are not known" in graphs.refusal(sampled)
    tokens = graphs.importlib.import_module("daam-lens.nodes.capture.prompt_tokens").prompt_tokens(blind, text)
    found = runs.maps_of(sampled, tokens)
    same_words(found[0].words, text)
    _, true = truth.unet_maps(unet("sd15"), lambda m: ksampler(m, encode(blind, text), encode(blind, ""), empty(128, 128)))
    graphs.equal(found, true, blind, text, ["snail", "grass"])
