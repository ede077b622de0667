"""Concepts of real diffusers pipelines against the sums written out in float64, place by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daam_core import MASK_METHODS, HeatMaps, trace
from daam_core.errors import BadArgument, BadRecord, UnsupportedModel, WordNotFound
from daam_core.maps import safetensors_file
from daam_core.prompt.concepts import RIVALS, Concept, rivals_of
from tests.core import models

CONCEPTS = ["moon", "a red boat"]
OWN = {"moon": ("moon",), "a red boat": ("red", "boat")}
"""The words of each whose columns are its own: not the article."""


class Witness:
    """What every `attn2` attends with, step by step, by PyTorch's own hooks on the layer, not on its projections."""

    def __init__(self, unet: Any) -> None:
        self.calls: list[tuple[Any, Tensor, Tensor]] = []
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, attn: Any, args: Any, kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.calls.append((attn, hidden.detach().clone(), kwargs["encoder_hidden_states"].detach().clone()))


def states_of(pipe: Any, text: str) -> tuple[list[str], Tensor]:
    """(tokens as read, `[columns, dim]`) of a text."""
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids)[0][0]
    return [token.removesuffix("</w>") for token in pipe.tokenizer.convert_ids_to_tokens(ids[0])], states


def written_out(pipe: Any, witness: Witness, row: int, prompt: str, concept: str, steps: int) -> dict[str, Any]:
    """Sums by positions n, and the presence, of one concept of one picture: heads, layers, steps one by one in float64."""
    text = concept if concept.startswith("a ") else f"a {concept}"
    tokens, states = states_of(pipe, text)
    own_states = states[[tokens.index(word) for word in OWN[concept]]]
    words, _ = states_of(pipe, prompt)
    count = words.index("<|endoftext|>") if "<|endoftext|>" in words else len(prompt.split()) + 1
    kept = [i for i in range(1, count) if words[i] not in OWN[concept]]
    rival_states = torch.stack([states_of(pipe, f"a {rival}")[1][2] for rival in rivals_of(Concept(concept, text))])
    per_step = len(witness.calls) // steps
    sums: dict[int, Tensor] = {}
    late: dict[int, Tensor] = {}
    for number, (attn, hidden, context) in enumerate(witness.calls):
        step = number // per_step + 1

        def heads(x: Tensor, attn: Any = attn) -> Tensor:
            return x.detach().double().unflatten(-1, (attn.heads, -1)).transpose(0, 1)

        with torch.no_grad():
            q = heads(attn.to_q(hidden[row]))
            own, against, rivals = (heads(attn.to_k(x)) for x in (own_states, context[row][kept], rival_states))
        e = [(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).exp().sum(-1) for k in (own, against, rivals)]
        place, of_heads = (e[0] / (e[0] + e[1])).sum(0), e[0] / (e[0] + e[1] + e[2])
        presence = sum(head * ((head - head.mean()) ** 2).mean() for head in of_heads)
        n = len(place)
        sums[n] = sums.get(n, 0) + place
        late[n] = late.get(n, 0) + presence * step**8
    return {"sums": sums, "late": late}


@pytest.mark.parametrize("kind", ["small", "sdxl"])
def test_concepts_are_the_sums_written_out_and_the_picture_is_the_same(kind: str) -> None:
    pipe = models.pipeline(kind)
    prompts = ["a red house", "a green tree and a fish"]
    untouched = models.paint(pipe, prompts)
    with trace(pipe) as plain:
        models.paint(pipe, prompts)
    with trace(pipe, concepts=CONCEPTS) as recording:
        picture = models.paint(pipe, prompts)
    assert recording.failure is None and recording.concept_failure is None
    assert torch.equal(picture, untouched)
    if kind == "sdxl":  # two encoders side by side: that the words stay and concepts are there is enough
        assert recording.heat_maps().concepts == CONCEPTS
        assert torch.equal(recording.heat_maps()["house"], plain.heat_maps()["house"])
        return
    witness = Witness(pipe.unet)
    models.paint(pipe, prompts)
    for image, prompt in enumerate(prompts):
        maps = recording.heat_maps(image)
        assert torch.equal(maps["a"], plain.heat_maps(image)["a"])
        for concept in CONCEPTS:
            true = written_out(pipe, witness, len(prompts) + image, prompt, concept, 2)
            for (h, w), channels in maps.sides["concepts"].sums.items():
                found = channels[1 + CONCEPTS.index(concept)].flatten().double()
                assert (found - true["sums"][h * w]).abs().max() <= 1e-5 * true["sums"][h * w].max()
            planes = [x.unflatten(0, (int(n**0.5), -1)) for n, x in true["late"].items()]
            late = torch.stack([F.interpolate(x[None, None], maps.grid, mode="bicubic")[0, 0] for x in planes]).sum(0)
            late = late.clamp(min=0).flatten()
            hottest = late.sort(descending=True).values[: max(1, int(0.03 * len(late)))]
            assert maps.presence(concept).score == pytest.approx(1 - float(late.mean() / hottest.mean()), abs=1e-5)


class Adapted(nn.Module):
    """A projection with something beside it, as LoRA makes one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.share = base, 0.0
        self.extra = torch.randn(base.weight.shape, generator=torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.share * x @ self.extra.to(x).T


def test_what_stands_beside_a_projection_takes_part_as_it_is_in_each_step() -> None:
    pipe = models.pipeline("small")
    adapted = []
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn2"):
            module.to_k = Adapted(module.to_k)
            adapted.append(module.to_k)

    def strengthen(_pipe: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        for one in adapted:
            one.share = step + 1.0
        return tensors

    with trace(pipe, concepts=["moon"]) as recording:
        models.paint(pipe, "a red house", callback_on_step_end=strengthen)
    maps = recording.heat_maps()
    witness, sums = Witness(pipe.unet), None
    for one in adapted:
        one.share = 0.0
    models.paint(pipe, "a red house", callback_on_step_end=strengthen)
    half = len(witness.calls) // 2
    for step in (0, 1):
        for one in adapted:
            one.share = float(step)
        part = Witness(nn.Module())
        part.calls = witness.calls[step * half : (step + 1) * half]
        found = written_out(pipe, part, 1, "a red house", "moon", 1)["sums"]
        sums = found if sums is None else {n: sums[n] + x for n, x in found.items()}
    assert sums is not None
    for (h, w), channels in maps.sides["concepts"].sums.items():
        assert (channels[1].flatten() - sums[h * w]).abs().max() <= 1e-5 * sums[h * w].max()


def test_weights_that_are_written_into_make_new_keys() -> None:
    pipe = models.pipeline("small")

    def change(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            for name, weight in pipe.unet.named_parameters():
                if "attn2.to_k" in name:
                    weight.mul_(0.0)
        return tensors

    with trace(pipe, concepts=["moon"]) as recording:
        models.paint(pipe, "a red house", callback_on_step_end=change)
    maps = recording.heat_maps()
    side = maps.sides["concepts"]
    for grid, sums in side.sums.items():
        second = (side.time_weighted[grid] - sums)[1] / 3  # late = first + 4 second, sums = first + second
        heads = side.num_terms[grid] / 2
        assert torch.allclose(second, torch.full_like(second, heads / 4), atol=1e-4)  # one column of four equal ones


def test_a_word_of_the_prompt_is_no_concept_and_everything_takes_a_concept(tmp_path: Path) -> None:
    pipe = models.pipeline("small")
    calls: list[int] = []
    pipe.text_encoder.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[1]))
    with trace(pipe, concepts=["house", "moon"], negative=True) as recording:
        models.paint(pipe, "a red house", negative_prompt="blurry")
    assert calls[:2] == [77, 77] and len(calls) == 3  # prompt, negative prompt, all concepts
    assert calls[2] < 15  # without the padding, on which nothing ahead of it depends
    maps = recording.heat_maps()
    assert maps.concepts == ["moon"] and not maps.is_concept("house") and "moon" in maps
    assert torch.equal(maps.heat_maps(["moon", "house", "moon"])[1], maps["house"])
    assert torch.equal(maps.heat_maps(["moon", "house", "moon"])[2], maps["moon"])
    with pytest.raises(WordNotFound, match="Recorded concepts: moon"):
        maps["zebra"]
    with pytest.raises(WordNotFound, match="not recorded as a concept"):
        maps.negative.presence("moon")  # type: ignore[union-attr]
    for method in MASK_METHODS:
        assert maps.mask("moon", method).shape == maps.size, method
    base = [x[1] - x[1].min() for x in maps.sides["concepts"].sums.values()]
    heat = torch.stack([F.interpolate(x[None, None], maps.grid, mode="bicubic")[0, 0] for x in base]).sum(0)
    assert torch.allclose(maps["moon"], heat, atol=1e-5) and maps.competitors("moon") == ["house"]
    assert "not in the prompt" in maps.caption("moon") and maps.caption("house") == "house"
    assert maps.overlay("moon").width and maps.contact_sheet(["house", "moon"]).width
    assert maps.select(grids=[maps.grid]).concepts == ["moon"]
    assert maps.without_concepts().concepts == [] and maps.weighted_by_time().concepts == ["moon"]
    again = HeatMaps.load(maps.save(tmp_path / "record"))
    assert again.presence("moon") == maps.presence("moon") and torch.equal(again["moon"], maps["moon"])
    tensors, header = safetensors_file.read(tmp_path / "record.safetensors")
    of_before = {**header, "concepts": {**header["concepts"], "presence": [0.3]}}
    del of_before["concepts"]["likely"]
    before = HeatMaps.load(safetensors_file.write(tmp_path / "before", tensors, of_before))
    assert before.presence("moon").word == "likely"  # by the level of then, which the scores of then belong to
    for level in (1.5, "x"):
        of_before["concepts"]["likely"] = level
        with pytest.raises(BadRecord):
            HeatMaps.load(safetensors_file.write(tmp_path / "before", tensors, of_before))
    for spoiled in ([2.0], [], ["x"]):
        header["concepts"]["presence"] = spoiled
        with pytest.raises(BadRecord):
            HeatMaps.load(safetensors_file.write(tmp_path / "spoiled", tensors, header))


def test_what_cannot_be_read_is_said_and_the_words_stay() -> None:
    pipe = models.pipeline("small")
    with torch.no_grad():
        embeds, negative = pipe.encode_prompt("a red house", "cpu", 1, True)
    pipe.text_encoder = None
    with trace(pipe, concepts=["moon"], prompts="a red house") as recording:
        models.paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert recording.failure is None and "house" in recording.heat_maps()
    assert "no text encoder any more" in (recording.concept_failure or "")
    pipe = models.pipeline("small")
    with trace(pipe, concepts=["moon"]) as recording:
        models.paint(pipe, None, prompt_embeds=embeds, negative_prompt_embeds=negative)
    assert "those of this prompt are not known" in (recording.concept_failure or "")
    with trace(pipe, concepts=["moon"]) as recording:
        models.paint(pipe, "")
    assert "this prompt has none" in (recording.concept_failure or "")
    with pytest.raises(BadArgument, match="no rule 'best'"):
        trace(pipe, concepts="moon", concept_rule="best")  # type: ignore[arg-type]
    pipe.unet.register_to_config(encoder_hid_dim_type="text_proj")
    with pytest.raises(UnsupportedModel, match="text_proj"):
        trace(pipe, concepts="moon")


def test_keys_of_another_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = models.pipeline("small")
    layer = next(module for name, module in pipe.unet.named_modules() if name.endswith("attn2"))

    class Doubled:
        """Attends to twice the text, and so makes other keys of it."""

        def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
            assert encoder_hidden_states is not None
            q, k, v = attn.to_q(hidden), attn.to_k(encoder_hidden_states * 2), attn.to_v(encoder_hidden_states)
            p = attn.get_attention_scores(attn.head_to_batch_dim(q), attn.head_to_batch_dim(k))
            return attn.to_out[0](attn.batch_to_head_dim(p @ attn.head_to_batch_dim(v)))

    layer.set_processor(Doubled())
    with trace(pipe, concepts=["moon"]) as recording:
        models.paint(pipe, "a red house")
    assert "not those of the text it is given" in (recording.concept_failure or recording.failure or "")


def test_rules_for_comparison_are_others() -> None:
    pipe = models.pipeline("small")
    found = {}
    calls: list[int] = []
    pipe.text_encoder.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[1]))
    for rule in ("prompt", "ovam", "column"):
        with trace(pipe, concepts=["moon"], concept_rule=rule) as recording:  # type: ignore[arg-type]
            models.paint(pipe, "a red house")
        found[rule] = recording.heat_maps()["moon"]
        assert (calls[-1] == 77) == (rule == "ovam"), "OVAM's denominator is the whole text with its padding"
    assert not torch.allclose(found["prompt"], found["ovam"]) and not torch.allclose(found["prompt"], found["column"])
    assert set(RIVALS) >= {"moon"}
