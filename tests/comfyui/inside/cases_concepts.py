"""Concepts that are not in the prompt, in the real host: against sums written out in float64, and through every node."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import comfy.sd
import graphs
import torch
import torch.nn.functional as F
import truth
from cases_nodes import painted, refused, run
from cases_patches import _lora
from comfy.patcher_extension import WrappersMP
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet

import nodes as host_nodes

concepts_of = importlib.import_module("daam-lens.daam_core.prompt.concepts").concepts_of
server = importlib.import_module("daam-lens.nodes.server")
CONCEPTS = "moon, a blue boat"
OWN = {"moon": ["moon"], "a blue boat": ["blue", "boat"]}
"""The words of each whose columns are its own: not the article."""
RIVALS = {
    "moon": "house tree sun star boat fish mushroom balloon flower car heart",
    "a blue boat": "house tree sun moon star fish mushroom balloon flower car heart",
}


def _ids(encoder: Any, word: str) -> list[int]:
    return list(encoder.tokenizer.clip_l.tokenizer(word)["input_ids"][1:-1])


def _states(encoder: Any, text: str, words: list[str]) -> torch.Tensor:
    """What CLIP makes of some words of a short text: `[columns, dim]`."""
    tokens = encoder.tokenize(text)
    row = [token[0] for token in tokens["l"][0]]
    return encoder.encode_from_tokens(tokens)[0][[row.index(i) for word in words for i in _ids(encoder, word)]]


def _kept(encoder: Any, prompt: str, concept: str) -> list[int]:
    """Columns of the prompt's words, less those of the concept's own."""
    own = {i for word in OWN[concept] for i in _ids(encoder, word)}
    chunks = encoder.tokenize(prompt)["l"]
    flat = [(77 * c + i, token[0]) for c, chunk in enumerate(chunks) for i, token in enumerate(chunk)]
    return [column for column, i in flat if i not in own and i not in (49406, 49407)]


class Witness(truth.Calls):
    """Every cross-attention of a run without Record, with `to_q` and `to_k` as they are then, written out in float64."""

    def __init__(self, encoder: Any, prompt: str, index: int = 0, nth: int | None = None, template: str = "a {}") -> None:
        super().__init__(index, nth)
        self.sums: dict[str, truth.Maps] = {concept: {} for concept in OWN}
        self.late: dict[str, truth.Maps] = {concept: {} for concept in OWN}
        self.step, self._grid, self._time = 0, (0, 0), -1.0
        self._q, self._inside = torch.empty(0), False
        self._texts = {}
        for concept, words in OWN.items():
            text = concept if concept.startswith("a ") and template == "a {}" else template.replace("{}", concept)
            rivals = [_states(encoder, f"a {rival}", [rival]) for rival in RIVALS[concept].split()]
            self._texts[concept] = _states(encoder, text, words), _kept(encoder, prompt, concept), torch.cat(rivals)

    def wrapper(self, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
        self.step += float(t[0]) != self._time
        self._time = float(t[0])
        return super().wrapper(executor, x, t, *args, **kwargs)

    def watch(self, model: Any, sample: Any) -> Any:
        watched, handles = model.clone(), []
        watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "truth", self.wrapper)
        for module in model.model.diffusion_model.modules():
            if hasattr(module, "transformer_blocks"):
                handles.append(module.register_forward_pre_hook(self._on_grid))
                for block in module.transformer_blocks:
                    handles.append(block.attn2.to_q.register_forward_hook(self._on_query))
                    handles.append(block.attn2.to_k.register_forward_hook(partial(self._on_key, block.attn2)))
        try:
            return sample(watched)
        finally:
            for handle in handles:
                handle.remove()

    def _on_grid(self, _module: Any, args: Any) -> None:
        self._grid = tuple(args[0].shape[-2:])

    def _on_query(self, _module: Any, _args: Any, out: torch.Tensor) -> None:
        self._q = out.clone()

    def _on_key(self, attn: Any, _module: Any, args: Any, _out: Any) -> None:
        if not self._inside:  # it is asked for more keys here
            self._inside = True
            self._add(attn, args[0])
            self._inside = False

    def _add(self, attn: Any, context: torch.Tensor) -> None:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.double().unflatten(-1, (attn.heads, -1)).transpose(0, 1)

        for image, row in enumerate(self.rows):
            q = heads(self._q[row])
            for concept, (own, kept, rivals) in self._texts.items():
                parts = [own.to(context), context[row][kept], rivals.to(context)]
                e = [(q @ heads(attn.to_k(x)).transpose(1, 2) / q.shape[-1] ** 0.5).exp().sum(-1) for x in parts]
                place, of_heads = (e[0] / (e[0] + e[1])).sum(0), e[0] / (e[0] + e[1] + e[2])
                there = sum(head * ((head - head.mean()) ** 2).mean() for head in of_heads) * self.step**8
                truth.add(self.sums[concept], self._grid, len(self.rows), image, place[:, None])
                truth.add(self.late[concept], self._grid, len(self.rows), image, there[:, None])

    def compare(self, found: Any) -> None:
        """Maps and presence of every picture, to 1e-5."""
        for image, maps in enumerate(found):
            assert maps.concepts == list(OWN), maps.concepts
            for number, concept in enumerate(OWN):
                side = maps.sides["concepts"]
                assert set(side.sums) == set(self.sums[concept])
                for grid, true in self.sums[concept].items():
                    off = float((side.sums[grid][1 + number].double() - true[image, 0]).abs().max() / true[image].max())
                    assert off < 1e-5, f"picture {image}, {concept}, {grid}: off by {off:.1e}"
                grid = max(side.sums, key=lambda g: g[0] * g[1])
                levels = [m[image][None] for m in self.late[concept].values()]
                late = sum(F.interpolate(level, size=grid, mode="bicubic")[0, 0] for level in levels)
                late = late.clamp(min=0).flatten()
                hottest = late.sort(descending=True).values[: max(1, int(0.03 * len(late)))]
                score = 1 - float(late.mean() / hottest.mean())
                assert abs(maps.presence(concept).score - score) < 1e-5, (maps.presence(concept), score)


def _check(kind: str, sample: Any, witness: Witness, model: Any = None, **options: Any) -> Any:
    """The same picture with and without concepts, nothing left, the words' maps those without concepts, the truth."""
    model = unet(kind) if model is None else model
    plain = witness.watch(model, lambda watched: sample(watched, clip(kind)))
    words = runs.maps_of(sample(*listen(model, clip(kind))))
    before = graphs.state(model)
    heard = sample(*listen(model, clip(kind), concepts=concepts_of(CONCEPTS), **options))
    assert torch.equal(plain, heard), "recording concepts changed the picture"
    assert graphs.state(model) == before, "something was left on the model"
    found = runs.maps_of(heard)
    assert runs.RECORDINGS.note(heard) == ""
    for one, other in zip(found, words, strict=True):
        assert torch.equal(one["house"], other["house"])
    witness.compare(found)
    return found


def case_concepts_are_the_sums_written_out() -> None:
    for kind, latent in (("sd15", empty(96, 160, 2)), ("sdxl", empty(64, 96))):

        def sample(model: Any, encoder: Any, latent: Any = latent) -> torch.Tensor:
            return ksampler(model, encode(encoder, PROMPT), encode(encoder, "blurry"), latent)

        _check(kind, sample, Witness(clip(kind), PROMPT))


def case_concepts_beside_a_prompt_of_several_chunks() -> None:
    """The longer text of two is what a UNet is given, and the shorter one is repeated."""
    long = " ".join(["a red house and a tall green tree"] * 12)

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, PROMPT), encode(encoder, long), empty(128, 128))

    def other_way(model: Any, encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(encoder, long), encode(encoder, "blurry"), empty(128, 128))

    _check("sd15", sample, Witness(clip("sd15"), PROMPT))
    _check("sd15", other_way, Witness(clip("sd15"), long))


def case_concepts_read_through_a_lora_and_clip_skip() -> None:
    """Nodes between Record and the prompt's encoder are there for concepts, too: a LoRA on both, another layer of CLIP."""
    skip = host_nodes.CLIPSetLastLayer()

    def told(model: Any, encoder: Any) -> tuple[Any, Any]:
        changed, lora = comfy.sd.load_lora_for_models(model, encoder, {**_lora(), **_clip_lora()}, 1.0, 1.0)
        return changed, skip.set_last_layer(lora, -2)[0]

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed, lora = told(model, encoder)
        return ksampler(changed, encode(lora, PROMPT), encode(lora, ""), empty(128, 128))

    found = _check("sd15", sample, Witness(told(unet("sd15"), clip("sd15"))[1], PROMPT))
    without = lambda model, encoder: ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))  # noqa: E731
    plain = runs.maps_of(without(*listen(unet("sd15"), clip("sd15"), concepts=concepts_of(CONCEPTS))))
    assert not torch.allclose(found[0]["moon"], plain[0]["moon"])


def _clip_lora() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    name = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    return {
        f"{name}.lora_up.weight": torch.randn(64, 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, 64, generator=generator),
    }


def case_concepts_of_several_prompts() -> None:
    """Two prompts side by side: each against its own words, added; a word of either is no concept."""
    other = "a moon above the sea"
    combine = host_nodes.ConditioningCombine()

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        both = combine.combine(encode(encoder, PROMPT), encode(encoder, "a small cat"))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    heard = sample(*listen(unet("sd15"), clip("sd15"), concepts=concepts_of(CONCEPTS)))
    found = runs.maps_of(heard)[0]
    # ComfyUI puts the last prompt first into its batch.
    parts = [Witness(clip("sd15"), PROMPT, nth=1), Witness(clip("sd15"), "a small cat", nth=0)]
    for part in parts:
        assert torch.equal(part.watch(unet("sd15"), lambda m: sample(m, clip("sd15"))), heard)
    for number, concept in enumerate(OWN):
        for grid, sums in found.sides["concepts"].sums.items():
            true = sum(part.sums[concept][grid][0, 0] for part in parts)
            assert float((sums[1 + number].double() - true).abs().max() / true.max()) < 1e-5

    def named(model: Any, encoder: Any) -> torch.Tensor:
        both = combine.combine(encode(encoder, PROMPT), encode(encoder, other))[0]
        return ksampler(model, both, encode(encoder, ""), empty(128, 128))

    maps = runs.maps_of(named(*listen(unet("sd15"), clip("sd15"), concepts=concepts_of(CONCEPTS))))[0]
    assert maps.concepts == ["a blue boat"] and not maps.is_concept("moon")


def case_the_encoder_reads_concepts_once() -> None:
    """Both prompts are encoded in one state of the encoder: all texts once, in batches, and the first again to tell."""
    encoder, sizes = clip("sd15"), []
    inner = encoder.cond_stage_model.clip_l
    handle = inner.transformer.register_forward_pre_hook(
        lambda _m, args, kwargs: sizes.append(_rows(args, kwargs)), with_kwargs=True
    )
    try:
        _, told = listen(unet("sd15"), encoder, concepts=concepts_of(CONCEPTS))
        encode(told, PROMPT), encode(told, "blurry")
    finally:
        handle.remove()
    assert sizes == [1, 1, 14, 1, 1], sizes


def _rows(args: Any, kwargs: Any) -> int:
    return next(len(x) for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))


def case_what_stands_between_text_and_layer_ends_concepts_and_not_words() -> None:
    """A patch that scales the text a little leaves every word in its column, and makes other keys of it."""

    def sample(model: Any, encoder: Any) -> torch.Tensor:
        changed = model.clone()
        changed.set_model_attn2_patch(lambda n, context, value, _: (n, context * 1.2, value))
        return ksampler(changed, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128))

    heard = _words_alone(sample, "stands between the text encoder and this layer")
    assert "house" in runs.maps_of(heard)[0]


def _words_alone(sample: Any, reason: str, **options: Any) -> torch.Tensor:
    """Concepts are not there, the words are, the picture is the same; the sentence says why."""
    plain = sample(unet("sd15"), clip("sd15"))
    heard = sample(*listen(unet("sd15"), clip("sd15"), concepts=concepts_of(CONCEPTS), **options))
    assert torch.equal(plain, heard)
    assert runs.maps_of(heard)[0].concepts == []
    assert reason in runs.RECORDINGS.note(heard), runs.RECORDINGS.note(heard)
    assert reason in refused("HeatMaps", {"samples": heard}, words="moon")
    return heard


def case_a_prompt_of_another_encoder_has_no_concepts() -> None:
    def sample(model: Any, _encoder: Any) -> torch.Tensor:
        return ksampler(model, encode(clip("sd15"), PROMPT), encode(clip("sd15"), ""), empty(128, 128))

    plain = sample(unet("sd15"), None)
    heard = sample(listen(unet("sd15"), None, concepts=concepts_of(CONCEPTS))[0], None)
    assert torch.equal(plain, heard)
    assert "Give Record the CLIP" in runs.RECORDINGS.note(heard)


def case_an_encoder_that_fails_on_concepts_still_encodes_prompts() -> None:
    module = importlib.import_module("daam-lens.nodes.capture.concept_encoding")
    honest = module._states

    def broken(*_: Any) -> Any:
        raise RuntimeError("the host has let go of it")

    module._states = broken
    try:
        _words_alone(
            lambda model, encoder: ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(128, 128)),
            "the text encoder did not encode the concepts",
        )
    finally:
        module._states = honest


def _told(call: Any) -> tuple[Any, str]:
    """(what a call gave, the texts that nodes showed at themselves meanwhile)."""
    texts: list[str] = []
    module = importlib.import_module("daam-lens.nodes.concepts")
    original = module.show_at_node
    module.show_at_node = lambda _node, text: texts.append(text)
    try:
        return call(), "\n".join(texts)
    finally:
        module.show_at_node = original


def case_every_node_takes_a_concept_and_says_how_likely_it_is() -> None:
    (wanted,) = run("Concepts", "moon\nstar, house", "a {}")
    latent, image = painted(concepts=wanted)
    (maps, _, soft, names), said = _told(lambda: run("HeatMaps", latent, image))
    assert names == ["red", "house", "green", "tree", "moon", "star"] and len(soft) == 2 * len(names)
    assert maps[0].concepts == ["moon", "star"], "a word of the prompt is no concept"
    for concept in maps[0].concepts:
        assert maps[0].caption(concept) in said and maps[1].caption(concept) in said
    assert "picture 2:" in said and "lights the object that fits best" in said
    assert run("HeatMaps", latent, image, "*")[3][-2:] == ["moon", "star"]
    captioned, told = _told(lambda: run("Overlay", maps, image, "moon"))
    assert maps[0].caption("moon") in told
    bare, told = _told(lambda: run("Overlay", maps, image, "moon", caption=False))
    assert maps[0].caption("moon") in told, "without a caption the score is said at the node"
    assert captioned[0].shape[1] > bare[0].shape[1] == 128
    # The caption is the concept's, not the bare word: the same heat with another line below.
    word = importlib.import_module("daam-lens.daam_core.render").overlay
    heat = maps[0].heat_map("moon", maps[0].size) / sum(maps[0].num_terms.values())
    opacity = importlib.import_module("daam-lens.daam_core.defaults").DEFAULT_OPACITY
    own = word(maps[0].picture, heat, opacity, "ember", maps[0].caption("moon"), True, unit="%")
    assert torch.equal((captioned[0][0, : own.shape[0]] * 255).round().byte(), torch.from_numpy(own.copy()))
    for method in ("best", "threshold", "otsu", "compete", "walk", "soft"):
        (mask, *_), told = _told(lambda method=method: run("Mask", maps, "moon", method))
        assert mask.shape == (2, 128, 160) and maps[0].caption("moon") in told, method
    assert maps[0].caption("moon") in run("PromptReport", maps)[0]
    assert "house" in run("PromptReport", maps, "moon")[0]
    region = torch.zeros(1, 128, 160)
    region[:, 20:60, 20:60] = 1
    text, _ = run("WordsInRegion", maps, region, "house, moon")
    assert maps[0].caption("moon") in text and "moon  " in text
    asked, told = _told(lambda: run("WordToSegmenter", maps, "moon"))
    assert maps[0].caption("moon") in told and asked[4].shape == (1, 128, 160)
    scores = run("ScoreMasks", maps, asked[4], "moon")[2]
    assert maps[0].caption("moon") in scores
    assert maps[0].caption("moon") in run("CompareMaps", maps, maps, "moon")[2]
    latent, image = painted(concepts=wanted, detail="steps")
    kept = run("HeatMaps", latent, image)[0]
    assert "steps of a concept (moon) are not kept apart" in refused("Timeline", kept, "moon")
    assert "Recorded concepts: moon, star" in refused("Mask", kept, "zebra")
    assert "Concepts are of all layers, steps and heads" in refused("HeatMaps", latent, image, "moon", steps="-1")


def case_concepts_of_two_records_of_one_picture_are_told_apart() -> None:
    source = runs.Source
    model, encoder, _ = run("TinyModel")
    for wanted in ("moon", "star"):
        heard, told = listen(model, encoder, concepts=concepts_of(wanted))
        samples = ksampler(heard, encode(told, PROMPT), encode(told, ""), {"samples": torch.zeros(1, 4, 16, 20)}, steps=1)
    assert runs.maps_of(samples)[0].concepts == ["star"]
    keys = {key[1] for key in runs.RECORDINGS._kept if isinstance(key[1], source) and dict(key[1].inputs).get("concepts")}
    assert {tuple(c.label for c in dict(key.inputs)["concepts"]) for key in keys} >= {("moon",), ("star",)}


def case_a_picture_is_read_with_concepts() -> None:
    import cases_reading as reading

    model, encoder, vae = run("TinyModel")
    scene = reading.bed.bed_scene("flat", 126)
    absent = "fish" if "fish" not in scene.caption else "boat"
    (maps,), said = _told(
        lambda: run("ReadPicture", model, encoder, vae, reading.picture(scene), scene.caption, concepts=concepts_of(absent))
    )
    assert maps[0].concepts == [absent] and maps[0].caption(absent) in said
    nouns = ", ".join(scene.masks)
    (alone,) = run("ReadPicture", model, encoder, vae, reading.picture(scene), " ", concepts=concepts_of(nouns))
    assert alone[0].concepts == [] and all(noun in alone[0] for noun in scene.masks)
    assert "The text is empty" in refused("ReadPicture", model, encoder, vae, reading.picture(scene), " ")


def case_what_is_no_list_of_concepts_is_said() -> None:
    assert "0 were given" in refused("Concepts", " \n, ")
    assert "65 were given" in refused("Concepts", "\n".join(f"thing {i}" for i in range(65)))
    assert "holds {} once" in refused("Concepts", "moon", "a photo of")
    (found,) = run("Concepts", "moon", "a photo of {}")
    assert found[0].text == "a photo of moon"
    (brackets,) = run("Concepts", "moon (round:1.5)")
    _, told = listen(unet("sd15"), clip("sd15"), concepts=brackets)
    carried = encode(told, PROMPT)[0][1]["daam_lens_concepts"]
    assert not isinstance(carried, str) and carried.prompts[0].words[1].label == "moon"
