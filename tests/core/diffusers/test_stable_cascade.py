"""Stable Cascade's prior: one attention with the picture, the text, its summary and picture prompts among its keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadePriorPipeline, StableCascadeUNet
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from daam_core import trace
from daam_core.errors import BadArgument, UnsupportedModel
from daam_core.types import Side

from ..models import PROMPT, text_config, tokenizer

PROMPTS, NEGATIVES = [PROMPT, "a star"], ["a tree", "a moon"]
HEIGHT, WIDTH = 512, 768
GRIDS = {(12, 18): 2, (6, 9): 2}
"""The grids of its layers' queries, and how many heads each has there."""
SUMMARY = 2 * 4
"""Keys of the text's summary and of an empty picture prompt."""


def prior() -> Any:
    torch.manual_seed(2)
    unet = StableCascadeUNet(
        in_channels=4, out_channels=4, conditioning_dim=16, block_out_channels=(16, 16), num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1), clip_text_pooled_in_channels=32,
        clip_text_in_channels=32, clip_image_in_channels=8,
    )  # fmt: skip
    for name, weight in unet.named_parameters():
        if "attention.to_k" in name or "attention.to_q" in name or "kv_mapper.1.weight" in name:
            weight.data *= 8 if "kv_mapper" not in name else 4
    pipe = StableCascadePriorPipeline(
        tokenizer=tokenizer(), text_encoder=CLIPTextModelWithProjection(text_config(32)).eval(), prior=unet.eval(),
        scheduler=DDPMWuerstchenScheduler(), resolution_multiple=42.67,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe: Any, **more: Any) -> Tensor:
    given: dict[str, Any] = {
        "prompt": list(PROMPTS), "negative_prompt": list(NEGATIVES), "height": HEIGHT, "width": WIDTH, "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(1),
    }  # fmt: skip
    return torch.as_tensor(pipe(**{**given, **more}).image_embeddings)


def watched(unet: Any) -> list[tuple[int, Tensor]]:
    """(queries, float64 probabilities `[rows, queries, keys]` summed over heads) of every attention from now on."""
    found: list[tuple[int, Tensor]] = []
    held: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if name.endswith(".attention"):
            layer.to_q.register_forward_hook(lambda _m, _a, q: held.__setitem__("q", q))

            def keyed(_m: Any, _a: Any, k: Tensor, heads: int = layer.heads) -> None:
                q, keys = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (held["q"], k))
                p = (q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).sum(1)
                found.append((q.shape[2], p))

            layer.to_k.register_forward_hook(keyed)
    return found


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_the_maps_are_those_of_the_equation(guidance: float) -> None:
    """Two pictures, not square, on two grids; the rows are [prompt, negative]; the picture's own keys take part."""
    pipe = prior()
    before = paint(pipe, guidance_scale=guidance)
    seen = watched(pipe.prior)
    with trace(pipe, negative=True) as recording:
        assert torch.equal(paint(pipe, guidance_scale=guidance), before)
    assert recording.failure is None
    assert [maps.words for maps in recording] == [["a", "red", "house", "and", "a#2", "green", "tree"], ["a", "star"]]
    for number, maps in enumerate(recording):
        assert (maps.steps, maps.size, set(maps.sums)) == (2, (HEIGHT, WIDTH), set(GRIDS))
        sides: list[tuple[Side, int]] = [("prompt", number)]
        if guidance > 1:
            sides.append(("negative", 2 + number))
        assert len(sides) == len(maps.sides)
        for side, row in sides:
            image = maps.sides[side]
            for (h, w), channels in image.sums.items():
                columns = [h * w + token.column for token in image.prompt.tokens]
                own = [p for queries, p in seen if queries == h * w]
                assert {p.shape[2] for p in own} == {h * w + 77 + SUMMARY}
                expected = torch.stack([p[row][:, columns].T for p in own]).sum(0)
                assert float(expected.std()) > 0
                assert (channels[1:-2].flatten(1) - expected).abs().max() <= 1e-5 * expected.abs().max()
                assert image.num_terms[h, w] == len(own) * GRIDS[h, w]


def test_nan_in_the_text_finds_the_columns_that_are_read() -> None:
    unet, seen = prior().prior, []
    first = next(layer for name, layer in unet.named_modules() if name.endswith(".attention"))
    first.to_k.register_forward_hook(lambda _m, _a, keys: seen.append(keys))
    with torch.no_grad():
        unet(
            sample=torch.randn(1, 4, 12, 18), timestep_ratio=torch.ones(1), clip_text_pooled=torch.randn(1, 1, 32),
            clip_text=torch.full((1, 77, 32), torch.nan), clip_img=torch.randn(1, 2, 8),
        )  # fmt: skip
    n, spoilt = 12 * 18, seen[0].isnan().any(-1)[0]
    assert spoilt.tolist() == [False] * n + [True] * 77 + [False] * (3 * 4)


def test_several_picture_prompts_stand_behind_the_text() -> None:
    """Each has tokens of its own; the words stay where they are."""
    pipe = prior()
    given = {"image_embeds": torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(4))}
    before = paint(pipe, **given)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, **given), before)
    seen = watched(pipe.prior)
    paint(pipe, **given)
    (maps, _) = recording
    columns = [12 * 18 + token.column for token in maps.sides["prompt"].prompt.tokens]
    own = [p for queries, p in seen if queries == 12 * 18]
    assert {p.shape[2] for p in own} == {12 * 18 + 77 + 4 * 4}
    expected = torch.stack([p[0][:, columns].T for p in own]).sum(0)
    assert (maps.sums[12, 18][1:-2].flatten(1) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_is_not_read_of_it_is_told() -> None:
    pipe = prior()
    with pytest.raises(UnsupportedModel, match="Concepts are not read from StableCascadeUNet"):
        trace(pipe, concepts=["sky"])
    with trace(pipe, output_space=True) as recording:
        paint(pipe)
    assert recording.heat_maps().words[2] == "house" and recording.output_failure
    assert recording.heat_maps().self_attention is None
    with pytest.raises(BadArgument, match="castorini"):
        recording.heat_maps(aggregation="castorini")


def test_a_sampling_loop_of_ones_own_is_read() -> None:
    """It is told no size: the picture's is that of the latents, each of which is so many pixels wide."""
    pipe = prior()
    latents = torch.randn(1, 4, 12, 18, generator=torch.Generator().manual_seed(1))
    with trace(pipe) as recording, torch.no_grad():
        text, summary, *_ = pipe.encode_prompt("cpu", 1, 1, False, prompt=[PROMPT])
        for time in (0.9, 0.5):
            ratio = torch.full((1,), time)
            pipe.prior(latents, timestep_ratio=ratio, clip_text_pooled=summary, clip_text=text, clip_img=torch.zeros(1, 1, 8))
    maps = recording.heat_maps()
    assert (maps.steps, maps.size, maps.words[2]) == (2, (HEIGHT, WIDTH), "house")
