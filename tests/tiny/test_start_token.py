"""The UNet's coarse cross-attention rests on the start token, and goes on doing so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from daam_core.tiny import latents, optim, unet
from daam_core.tiny.load import load_tiny
from daam_core.tiny.start_token import coarse_blocks, freeze_coarse_attention, rest_on_start

CAPTIONS = [
    f"a {colour} {noun} {relation} a {other} {thing}"
    for colour, other in (("red", "green"), ("blue", "pink"), ("yellow", "orange"))
    for noun, thing in (("house", "tree"), ("fish", "sun"), ("star", "car"))
    for relation in ("and", "above", "next to")
]


@pytest.fixture(scope="module")
def text() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids, the states of the text encoder inside, and the end token."""
    pipe = load_tiny()
    ids = pipe.tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids
    return ids, latents.text_states(pipe.text_encoder, ids), pipe.tokenizer.eos_token_id


def shares(attn: Any, norm: Any, picture: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Attention `[captions, heads, n, 77]` of a picture's states `[1, n, 128]`, written out."""
    normal = F.layer_norm(picture, picture.shape[-1:]) * norm.weight + norm.bias
    q = (normal @ attn.to_q.weight.T).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    k = (states.float() @ attn.to_k.weight.T).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    found: torch.Tensor = torch.softmax(q @ k.mT * attn.scale, -1)
    return found


def test_coarse_layers_look_at_the_start_and_hardly_at_words(text: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    ids, states, end = text
    torch.manual_seed(0)
    model = unet.make_unet()
    picture = torch.randn(1, 16, 128) * 3 + 1
    before = {id(b): F.layer_norm(picture, (128,)) @ b.attn2.to_q.weight.T for b in coarse_blocks(model)}
    rest_on_start(model, ids, end, [states])
    ends = (ids == end).int().argmax(1)
    blocks = list(coarse_blocks(model))
    assert len(blocks) == 7
    for block in blocks:
        p = shares(block.attn2, block.norm2, picture, states)
        of_words = torch.stack([row[:, :, 1:last].sum(-1) for row, last in zip(p, ends, strict=True)])
        assert p[..., 0].mean() > 0.4
        assert of_words.mean() < 0.1  # of some seven words; evenly it would be 0.09 and more where they are longer
        assert of_words.mean() < 0.5 * float((ends - 1).float().mean()) / 77
        # What the picture adds to the queries is what it added before.
        now = F.layer_norm(picture, (128,)) @ block.attn2.to_q.weight.T
        torch.testing.assert_close(now, before[id(block)], atol=1e-4, rtol=1e-4)


def test_the_finest_layers_stay_as_they_are(text: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    ids, states, end = text
    torch.manual_seed(0)
    model = unet.make_unet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rest_on_start(model, ids, end, [states, states])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert len(changed) == 14
    assert all(name.endswith(("norm2.bias", "attn2.to_q.weight")) for name in changed)
    assert not any(name.startswith(("down_blocks.0.", "up_blocks.2.")) for name in changed)


def test_a_second_time_changes_nothing_more(text: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    ids, states, end = text
    torch.manual_seed(0)
    model = unet.make_unet()
    rest_on_start(model, ids, end, [states])
    once = {name: value.clone() for name, value in model.state_dict().items()}
    rest_on_start(model, ids, end, [states])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, once[name], atol=1e-4, rtol=1e-4)


def test_training_leaves_where_they_look_alone() -> None:
    torch.manual_seed(0)
    model = unet.make_unet()
    freeze_coarse_attention(model)
    coarse = {id(p) for b in coarse_blocks(model) for p in (*b.norm2.parameters(), b.attn2.to_q.weight, b.attn2.to_k.weight)}
    assert len(coarse) == 28
    assert {id(p) for p in model.parameters() if not p.requires_grad} == coarse
    trained = {id(p) for group in optim.split(model, plain=("conv_in",)) for p in group}
    assert not coarse & trained


def test_the_model_inside_looks_there(text: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    _, states, _ = text
    pipe = load_tiny()
    picture = torch.randn(1, 16, 128, generator=torch.Generator().manual_seed(1))
    for block in coarse_blocks(pipe.unet):
        assert shares(block.attn2, block.norm2, picture, states)[..., 0].mean() > 0.3
