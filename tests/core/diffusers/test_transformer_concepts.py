"""`trace(pipe, concepts=…)` on pipelines with a transformer: pictures untouched, words as without, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from daam_core import HeatMaps, trace
from daam_core.errors import BadArgument, UnsupportedModel
from daam_core.tiny import load_tiny

from . import detour_pipelines as detour
from . import transformer_pipelines as made
from .pipeline_cases import CASES, paint

CONCEPTS = ["moon", "a dog's tail", "cats"]


@pytest.mark.parametrize("name", ["flux", "sd3", "qwen", "z-image", "pixart"])
def test_pictures_are_bit_identical_and_concepts_stand_beside_the_words(name: str, tmp_path: Any) -> None:
    """Two prompts of different length, with guidance: two calls of the model, or one stacked batch."""
    case = CASES[name]
    pipe = case.make()
    before = paint(pipe, case)
    encoders = [part for key, part in pipe.components.items() if key.startswith("text_encoder") and isinstance(part, nn.Module)]
    calls: list[int] = []
    handles = [part.register_forward_hook(lambda *_: calls.append(1)) for part in encoders]
    with trace(pipe, negative=True) as plain:
        paint(pipe, case)
    prompts = len(calls)
    with trace(pipe, negative=True, concepts=CONCEPTS) as recording:
        during = paint(pipe, case)
    for handle in handles:
        handle.remove()
    # Z-Image's pipeline encodes the negative prompt in the same method; it has none here.
    assert len(calls) - 2 * prompts == len(encoders), "the concepts are encoded once"
    assert recording.failure is None and recording.concept_failure is None
    assert torch.equal(during, before) and torch.equal(paint(pipe, case), before)
    first, second = recording
    assert first.concepts == CONCEPTS and second.concepts == CONCEPTS[:2], "a word of the prompt has its own map"
    for maps, other in zip(recording, plain, strict=True):
        assert torch.equal(maps[maps.words[0]], other[maps.words[0]])
        assert maps.heat_map("moon").shape == (4, 6) and 0 < maps.presence("moon").score < 1
        assert maps.mask("a dog's tail").shape == maps.size
    sums = first.sides["concepts"].sums[4, 6][1:-2]
    assert not torch.allclose(sums, second.sides["concepts"].sums[4, 6][1:3][:1], atol=1e-5)
    if name != "pixart":  # a place is shared out among all concepts, in every layer and step
        assert torch.allclose(sums.sum(0), torch.full((4, 6), float(first.sides["concepts"].num_terms[4, 6])), atol=1e-4)
    again = HeatMaps.load(first.save(tmp_path / "record"))
    assert torch.equal(again["moon"], first["moon"]) and again.presence("moon") == first.presence("moon")


def test_rules_of_cross_attention_differ_and_joint_models_have_one() -> None:
    case, pipe = CASES["pixart"], made.pixart()
    found = {}
    for rule in ("prompt", "ovam", "column"):
        with trace(pipe, concepts=["moon"], concept_rule=rule) as recording:  # type: ignore[arg-type]
            paint(pipe, case)
        found[rule] = recording.heat_maps()["moon"]
    assert not torch.allclose(found["prompt"], found["ovam"]) and not torch.allclose(found["prompt"], found["column"])
    with pytest.raises(BadArgument, match=r"'ovam' is one of cross-attention; Flux\.1"):
        trace(made.flux(), concepts="moon", concept_rule="ovam")


def test_what_concepts_are_not_read_from_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"Concepts are read from UNets and from .*; LongCat-Image is not one of them"):
        trace(detour.longcat(), concepts="moon")
    pipe = made.flux()
    pipe.transformer.compile()
    with pytest.raises(UnsupportedModel, match="Record it uncompiled"):
        trace(pipe, concepts="moon")


def test_an_encoder_that_is_gone_and_keys_of_another_text_end_the_concepts_alone() -> None:
    case, pipe = CASES["flux"], made.flux()
    embeds, pooled, _ = pipe.encode_prompt("a red house", None, max_sequence_length=20)
    pipe.text_encoder_2 = None
    with trace(pipe, concepts=["moon"]) as recording:
        paint(pipe, case, None, None, prompt_embeds=embeds, pooled_prompt_embeds=pooled, true_cfg_scale=1.0)
    assert recording.failure is None and "no text encoder any more" in (recording.concept_failure or "")
    pipe = made.pixart()
    layer = pipe.transformer.transformer_blocks[1].attn2
    layer.to_k.register_forward_hook(lambda m, a, out: out * 2 if a[0].dim() == 3 else out)
    with trace(pipe, concepts=["moon"]) as recording:
        paint(pipe, CASES["pixart"])
    assert recording.failure is None and "not those of the text it is given" in (recording.concept_failure or "")
    assert recording.heat_maps().words[0] == "a"


def test_an_encoder_that_never_was_is_not_called_gone() -> None:
    """The transformer inside has one text encoder of the three of its pipeline's class: concepts are read as a prompt."""
    pipe = load_tiny("transformer")
    assert pipe.text_encoder_3 is None and pipe.tokenizer_3 is None
    arguments = {"num_inference_steps": 2, "output_type": "np"}
    with trace(pipe, concepts=["moon"]) as recording:
        pipe("a red house", generator=torch.Generator().manual_seed(3), **arguments)
    assert recording.failure is None and recording.concept_failure is None
    heat = recording.heat_maps()["moon"]
    assert heat.shape == (8, 8) and float(heat.max()) > float(heat.min()) >= 0


def test_a_model_in_training_mode_keeps_its_random_numbers() -> None:
    case, pipe = CASES["sd3"], made.stable_diffusion_3()
    pipe.transformer.train()
    pipe.transformer.transformer_blocks[0].ff_context.net.append(nn.Dropout(0.5))
    torch.manual_seed(3)
    before = paint(pipe, case)
    torch.manual_seed(3)
    with trace(pipe, concepts=["moon"]) as recording:
        during = paint(pipe, case)
    assert torch.equal(before, during) and "training mode" in (recording.concept_failure or "")


def test_hooks_of_concepts_leave_nothing_behind() -> None:
    case, pipe = CASES["z-image"], made.z_image()
    with trace(pipe, concepts=CONCEPTS):
        paint(pipe, case)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in pipe.transformer.modules())
