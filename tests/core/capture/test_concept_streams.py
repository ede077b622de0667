"""Concepts of transformers against ConceptAttention and the attention to their own keys, written out in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daam_core.capture import text_streams
from daam_core.capture.region import WHOLE
from daam_core.prompt.concepts import rivals_of

from . import concept_case as concepts
from .concept_case import Joint, chosen_columns, concept_texts, recorded, shares, strong
from .transformer_models import CASES, build

JOINT = ["sd3", "flux", "flux 2", "qwen", "z-image"]
KEYS = ["pixart", "sana", "wan", "ltx"]


def stream_sums(joint: Joint, texts: Any, row: int) -> tuple[Tensor, Tensor]:
    """Sums over layers of (map, presence), with the model's own blocks run on the tokens in place of the text."""
    total: list[Tensor] = []
    streams: list[list[Any]] = [[chosen, None] for chosen in chosen_columns(texts)]
    for index, (_, _, first) in enumerate(joint.blocks):
        outputs: dict[str, Tensor] = {}
        for stream in streams:
            chosen, tokens = stream
            if tokens is None:
                tokens = joint.embed(texts, chosen)[None].expand(2, -1, -1)
            read, stream[1] = joint.through(index, tokens, [column for _, column in chosen])
            for text in dict.fromkeys(text for text, _ in chosen):
                own = [i for i, (other, _) in enumerate(chosen) if other == text]
                outputs[texts.labels[text]] = read[row, :, own]
        picture = joint.picture(joint.calls[first][3])[row]
        total.append(torch.stack(shares(picture, outputs, texts)))
    place, presence = sum(total)  # type: ignore[misc]
    return place, presence


def assert_sums(recording: Any, image: int, grid: Any, wanted: tuple[Tensor, Tensor], layers: int) -> None:
    assert not recording.recording.concept_failure
    found = recording.recording.concepts.sums[image][grid, WHOLE]
    assert found.num_terms == layers
    for own, true in zip(found.total, wanted, strict=True):
        assert float(true.std() / true.mean()) > 0.01, "a map that is alike everywhere proves nothing"
        assert float((own.double() - true).abs().max()) <= 1e-5 * min(layers, float(true.max()))


@pytest.mark.parametrize("name", JOINT)
def test_the_stream_is_what_the_blocks_make_of_concepts_in_place_of_the_text(name: str) -> None:
    """Two pictures that are not square, texts of different length, concepts longer than the prompt."""
    case, model = strong(name)
    texts = concept_texts()
    with torch.no_grad():
        before = model(**case.given, return_dict=False)[0]
    recording, during, errors = recorded(model, case, texts)
    assert not errors and torch.equal(during, torch.stack(list(before)) if isinstance(before, list) else before)
    plain, _, _ = recorded(model, case, None)
    joint = Joint(name, model, case)
    for image in (0, 1):
        wanted = stream_sums(joint, texts, image)
        assert_sums(recording, image, case.grid[1:], wanted, len(joint.blocks))
        (own,), (other,) = (x.recording.groups[image].accumulator.sums.values() for x in (recording, plain))
        assert torch.equal(own.total, other.total)


def test_one_concept_is_held_against_rivals_and_guidance_has_no_part() -> None:
    case, model = strong("sd3")
    texts = concept_texts(["lamp"])
    recording, _, errors = recorded(model, case, texts, ("negative", "prompt"))
    assert not errors and list(recording.recording.concepts.sums) == [0]  # type: ignore[union-attr]
    joint = Joint("sd3", model, case)
    assert_sums(recording, 0, case.grid[1:], stream_sums(joint, texts, 1), len(joint.blocks))


class Adapted(nn.Module):
    """A projection with something beside it, as LoRA makes one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.extra = nn.Parameter(torch.randn(base.weight.shape, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * x @ self.extra.T


def test_what_stands_beside_the_texts_projections_takes_part() -> None:
    case, model = strong("flux")
    texts = concept_texts()
    plain, _, _ = recorded(model, case, texts)
    for block in model.transformer_blocks:  # type: ignore[union-attr]
        block.attn.add_v_proj, block.attn.to_add_out = Adapted(block.attn.add_v_proj), Adapted(block.attn.to_add_out)
    recording, _, _ = recorded(model, case, texts)
    joint = Joint("flux", model, case)
    assert_sums(recording, 0, case.grid[1:], stream_sums(joint, texts, 0), len(joint.blocks))
    one, other = (x.recording.concepts.sums[0][case.grid[1:], WHOLE].total for x in (plain, recording))  # type: ignore[union-attr]
    assert not torch.allclose(one, other, atol=1e-3)


def written_out(block: Any, x: Tensor, temb: Tensor, k: Tensor, v: Tensor, turned: Any) -> tuple[Tensor, Tensor]:
    """ConceptAttention in one block, formula by formula: (what the tokens read, what they are behind it)."""
    attn, norm, heads = block.attn, block.norm1_context, k.shape[1]

    def linear(x: Tensor, layer: nn.Linear) -> Tensor:
        return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)

    def layer_norm(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

    def rms(x: Tensor, layer: Any) -> Tensor:
        return x if layer is None else x / (x.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight

    parts = linear(temb * torch.sigmoid(temb), norm.linear)[:, None].chunk(
        2 if getattr(block, "context_pre_only", 0) else 6, -1
    )
    shift, scale = (parts[1], parts[0]) if len(parts) == 2 else parts[:2]
    h = layer_norm(x) * (1 + scale) + shift
    q_c, k_c, v_c = (
        linear(h, layer).unflatten(-1, (heads, -1)).transpose(1, 2)
        for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    )
    q_c, k_c = rms(q_c, attn.norm_added_q), rms(k_c, attn.norm_added_k)
    if turned is not None:
        cos, sin = turned
        q_c, k_c = (y * cos + torch.stack([-y[..., 1::2], y[..., ::2]], -1).flatten(-2) * sin for y in (q_c, k_c))
    keys, values = torch.cat([k_c, k], 2), torch.cat([v_c, v], 2)
    o = (q_c @ keys.transpose(2, 3) / q_c.shape[-1] ** 0.5).softmax(-1) @ values
    if len(parts) == 2:
        return o, x
    x = x + parts[2] * linear(o.transpose(1, 2).flatten(2), attn.to_add_out)
    h = layer_norm(x) * (1 + parts[4]) + parts[3]
    inner, outer = block.ff_context.net[0].proj, block.ff_context.net[2]
    return o, x + parts[5] * linear(F.gelu(linear(h, inner), approximate="tanh"), outer)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_the_stream_is_the_papers_formula_by_formula(name: str) -> None:
    case, model = strong(name)
    texts = concept_texts()
    recording, _, _ = recorded(model, case, texts)
    joint, total = Joint(name, model, case), []
    streams = [(chosen, joint.embed(texts, chosen)[None].expand(2, -1, -1)) for chosen in chosen_columns(texts)]
    with torch.no_grad():
        for block, given, first in joint.blocks:
            _, k, v, out = joint.calls[first]
            outputs = {}
            for n, (chosen, x) in enumerate(streams):
                turned = given.get("image_rotary_emb")
                turned = turned and [part[[column for _, column in chosen]].double() for part in turned]
                o, behind = written_out(block, x, given["temb"], joint.picture(k), joint.picture(v), turned)
                streams[n] = chosen, behind
                for text in dict.fromkeys(text for text, _ in chosen):
                    own = [i for i, (other, _) in enumerate(chosen) if other == text]
                    outputs[texts.labels[text]] = o[1, :, own]
            total.append(torch.stack(shares(joint.picture(out)[1], outputs, texts)))
    assert_sums(recording, 1, case.grid[1:], tuple(sum(total)), len(joint.blocks))  # type: ignore[arg-type]


def key_sums(name: str, model: Any, case: Any, texts: Any, row: int) -> tuple[Tensor, Tensor]:
    """The sums of a cross-attention model by the rule of `texts`, heads and layers one by one in float64."""
    given = {key: concepts.doubled(value) for key, value in case.given.items()}
    twin: Any = copy.deepcopy(model).double()
    seen: list[tuple[Any, Tensor, Tensor]] = []
    for module_name, module in twin.named_modules():
        if module_name.endswith("attn2"):

            def note(attn: Any, args: Any, kwargs: Any) -> None:
                hidden = args[0] if args else kwargs["hidden_states"]
                seen.append((attn, hidden, args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]))

            module.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        twin(**given, return_dict=False)
        embed = twin.condition_embedder.text_embedder if name == "wan" else twin.caption_projection
        states = embed(texts.states.double())
        states = twin.caption_norm(states) if name == "sana" else states
    words = list(range(1, 1 + concepts.WORDS))
    every = range(CASES[name].given["encoder_hidden_states"].shape[1])
    mask = case.given.get("encoder_attention_mask")
    every = [c for c in every if mask is None or mask[row, c]]
    total: Any = 0
    for attn, hidden, context in seen:

        def heads(x: Tensor, projection: Any, norm: Any, attn: Any = attn) -> Tensor:
            y = projection(x)
            y = y if norm is None else norm(y)
            return y.unflatten(-1, (attn.heads, -1)).transpose(0, 1)

        with torch.no_grad():
            q = heads(hidden[row], attn.to_q, attn.norm_q)

            def exp(x: Tensor, q: Tensor = q, attn: Any = attn, heads: Any = heads) -> Tensor:
                return (q @ heads(x, attn.to_k, attn.norm_k).transpose(1, 2) / q.shape[-1] ** 0.5).exp().sum(-1)

            found = []
            for c, concept in enumerate(texts.concepts):
                own = exp(states[c, concepts.OWN[concept.label]])
                below = {
                    "prompt": own + exp(context[row, words]),
                    "column": exp(context[row, every]),
                    "ovam": exp(states[c]),
                }[texts.rule]
                rivals = sum(exp(states[texts.labels.index(rival), [2]]) for rival in rivals_of(concept))
                presence = own / (own + exp(context[row, words]) + rivals)
                spread = ((presence - presence.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
                found.append(torch.stack([(own / below).sum(0), (presence * spread).sum(0)]))
        total = total + torch.stack(found, -1)
    return total[0], total[1]


@pytest.mark.parametrize(
    ("name", "rule"),
    [*((name, "prompt") for name in KEYS), ("pixart", "column"), ("pixart", "ovam")],
)
def test_keys_of_concepts_are_those_of_the_layers(name: str, rule: str) -> None:
    case = CASES[name]
    if case.grid[0] != 1:
        case = one_frame(name)
    case = with_words_kept(case)
    model = build(case)
    texts = concept_texts(rule=rule)
    recording, during, errors = recorded(model, case, texts)
    _, before, _ = recorded(model, case, None)
    assert not errors and torch.equal(before, during)
    for image in (0, 1):
        wanted = key_sums(name, model, case, texts, image)
        found = recording.recording.concepts.sums[image][case.grid[1:], WHOLE]  # type: ignore[union-attr]
        for own, true in zip(found.total, wanted, strict=True):
            assert float(true.std() / true.mean()) > 0.01
            assert float((own.double() - true).abs().max()) <= 1e-5 * float(true.max())


def with_words_kept(case: Any) -> Any:
    """The same with a mask that keeps the prompts' words, their start and end, where it has a mask."""
    mask = case.given.get("encoder_attention_mask")
    if mask is None:
        return case
    kept = (torch.arange(mask.shape[1]) < concepts.WORDS + 2).long().expand(2, -1)
    return replace(case, given={**case.given, "encoder_attention_mask": kept})


def one_frame(name: str) -> Any:
    case = CASES[name]
    _, height, width = case.grid
    given = dict(case.given)
    if name == "wan":
        given["hidden_states"] = given["hidden_states"][:, :, :1]
    else:
        given["hidden_states"], given["num_frames"] = given["hidden_states"][:, : height * width], 1
    return replace(case, given=given, grid=(1, height, width))


@pytest.mark.parametrize("name", ["flux 2", "qwen", "pixart"])
def test_half_precision(name: str) -> None:
    def half(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.bfloat16() if x.is_floating_point() else x
        return [half(y) for y in x] if isinstance(x, list) else x

    case = CASES[name]
    halved = replace(case, given={key: half(value) for key, value in case.given.items()})
    model = build(case).bfloat16()
    recording, during, _ = recorded(model, halved, concept_texts())
    _, before, _ = recorded(model, halved, None)
    wanted, _, _ = recorded(build(case), case, concept_texts())
    assert torch.equal(during, before) and not recording.recording.concept_failure
    one, other = (x.recording.concepts.sums[0][case.grid[1:], WHOLE] for x in (recording, wanted))  # type: ignore[union-attr]
    assert (one.total - other.total).abs().max() / other.num_terms < 0.1


def test_what_fails_ends_the_concepts_and_not_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    case, model = strong("sd3")
    plain, before, _ = recorded(model, case, None)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no")

    stream = replace(text_streams.TEXT_STREAMS["Stable Diffusion 3"], enter=broken)
    monkeypatch.setitem(text_streams.TEXT_STREAMS, "Stable Diffusion 3", stream)
    recording, during, errors = recorded(model, case, concept_texts())
    assert torch.equal(before, during) and not errors
    assert recording.recording.concept_failure.startswith("There are no concepts, the words were recorded")
    (own,), (other,) = (x.recording.groups[0].accumulator.sums.values() for x in (recording, plain))
    assert torch.equal(own.total, other.total)


def test_blocks_that_are_left_out_and_videos_are_refused() -> None:
    case, model = strong("sd3")
    given = {**case.given, "skip_layers": [0]}
    recording, _, errors = recorded(model, replace(case, given=given), concept_texts())
    assert not errors and "were left out" in recording.recording.concept_failure
    recording, _, _ = recorded(build(CASES["wan"]), CASES["wan"], concept_texts())
    assert "of videos" in recording.recording.concept_failure
