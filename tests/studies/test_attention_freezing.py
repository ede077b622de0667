"""Frozen attention: the formula by hand, the picture that comes of it, and a model that is afterwards as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from daam_core.errors import BadArgument, UnsupportedModel
from daam_core.prompt.prompt import Prompt
from daam_core.studies.attention_freezing import Freeze, freeze, freezing, frozen, shared_words

from ..core.models import paint, pipeline, tokenizer

RED, BLUE, BARE = "a red house on grass", "a blue house on grass", "a house on grass"


def read(text: str) -> Prompt:
    tok = tokenizer()
    return Prompt.from_ids(tok(text, padding="max_length", max_length=77, truncation=True).input_ids, tok, text=text)


def draw(pipe: Any, texts: list[str], seed: int = 3, **options: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for _ in texts]
    return paint(pipe, texts, generator=generators, **options)


def test_the_formula_by_hand() -> None:
    p = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    s = torch.tensor([[0.6, 0.1, 0.3], [0.25, 0.25, 0.5]])
    # Column 1 of the copy takes column 0 of the source; 0.4 is left for 0.2 : 0.5, and 0.75 evenly for two zeros.
    expected = torch.tensor([[0.4 * 2 / 7, 0.6, 0.4 * 5 / 7], [0.375, 0.25, 0.375]])
    assert torch.allclose(frozen(p, s, [0], [1]), expected)
    assert torch.allclose(frozen(p, s, [], []), p)
    assert torch.allclose(frozen(p, s, [0, 1, 2], [0, 1, 2]), s)


def test_rows_still_sum_to_one() -> None:
    chance = torch.Generator().manual_seed(0)
    p, s = torch.rand(2, 3, 50, 77, generator=chance).mul(20).softmax(-1)
    for columns in ([3], [*range(40)], [*range(77)]):
        changed = frozen(p, s, columns, columns)
        assert torch.allclose(changed.sum(-1), torch.ones(3, 50), atol=1e-5)
        assert bool((changed >= 0).all())
        assert torch.equal(changed[..., columns], s[..., columns])


def all_but_the_difference(source: str, copy: str, specials: bool = True) -> Freeze:
    prompts = read(source), read(copy)
    return freeze((0, 1), prompts, shared_words(*prompts)[0], specials)


def only(word: str, source: str, copy: str) -> Freeze:
    prompts = read(source), read(copy)
    return freeze((0, 1), prompts, [pair for pair in shared_words(*prompts)[0] if pair[1].text == word])


def test_columns_of_words_that_moved() -> None:
    noun = only("house", RED, BARE)
    assert (noun.of, noun.to) == ((3,), (2,))
    everything = all_but_the_difference(RED, BLUE)
    assert set(everything.to) == set(range(77)) - {2} and everything.of == everything.to
    moved = all_but_the_difference(BARE, RED)
    pairs = dict(zip(moved.to, moved.of, strict=True))
    assert pairs[0] == 0 and pairs[1] == 1 and pairs[3] == 2 and pairs[5] == 4 and pairs[6] == 5
    assert 2 not in pairs and len(set(moved.of)) == len(moved.of)
    assert all_but_the_difference(RED, BLUE, specials=False).to == (1, 3, 4, 5)


def test_words_in_common_are_told_by_their_place() -> None:
    def shared(source: str, copy: str) -> tuple[list[str], list[str]]:
        pairs, own = shared_words(read(source), read(copy))
        assert all(a.text == b.text for a, b in pairs)
        return [b.label for _, b in pairs], [word.label for word in own]

    assert shared("a red house at sea", "an orange house at sea") == (["house", "at", "sea"], ["an", "orange"])
    # "red" stands elsewhere, too: the second house keeps its place, not its number.
    assert shared("a red house and a red tree", "a house and a red tree") == (["a", "house", "and", "a#2", "red", "tree"], [])
    assert shared("a red house", "a red house") == (["a", "red", "house"], [])
    assert shared("a house", "two boats") == ([], ["two", "boats"])


def test_what_is_no_freeze_is_refused() -> None:
    with pytest.raises(BadArgument, match="cannot take over its own"):
        Freeze(1, 1, (), ())
    with pytest.raises(BadArgument, match="one for one"):
        Freeze(0, 1, (1, 2), (3,))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline("sd15")


def test_frozen_pictures_equal_an_explicit_computation(pipe: Any) -> None:
    """The second picture is what a loop over heads gives that looks up the first one's probabilities."""
    held = only("house", RED, BLUE)
    with freezing(pipe.unet, 2, [held]):
        got = draw(pipe, [RED, BLUE])

    def explicit(attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *rest: Any, **options: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        d = q.shape[-1] // attn.heads
        out = torch.zeros_like(q)
        for head in range(attn.heads):
            part = slice(head * d, (head + 1) * d)
            p = (q[..., part].double() @ k[..., part].double().transpose(1, 2) / d**0.5).softmax(-1)
            if encoder_hidden_states is not None:
                column = held.to[0]
                rest_of_it = 1 - p[3, :, column]
                p[3] = p[3] * ((1 - p[2, :, held.of[0]]) / rest_of_it)[:, None]
                p[3, :, column] = p[2, :, held.of[0]]
            out[..., part] = (p @ v[..., part].double()).to(out.dtype)
        return attn.to_out[0](out)  # type: ignore[no-any-return]

    before = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor(explicit)
    try:
        expected = draw(pipe, [RED, BLUE])
    finally:
        pipe.unet.set_attn_processor(dict(before))
    assert torch.allclose(got, expected, atol=1e-4)
    assert not torch.allclose(got[1], draw(pipe, [RED, BLUE])[1], atol=1e-3)


def test_the_source_is_not_touched_and_nothing_stays(pipe: Any) -> None:
    plain = draw(pipe, [RED, BLUE])
    processors = dict(pipe.unet.attn_processors)
    with freezing(pipe.unet, 2, [all_but_the_difference(RED, BLUE)]):
        held = draw(pipe, [RED, BLUE])
    assert torch.allclose(held[0], plain[0], atol=1e-4)
    assert pipe.unet.attn_processors == processors
    assert torch.equal(draw(pipe, [RED, BLUE]), plain)
    with pytest.raises(ZeroDivisionError), freezing(pipe.unet, 2, [Freeze(0, 1, (1,), (1,))]):
        raise ZeroDivisionError
    assert torch.equal(draw(pipe, [RED, BLUE]), plain)


def test_freezing_the_same_prompt_changes_nothing(pipe: Any) -> None:
    with freezing(pipe.unet, 2, [all_but_the_difference(RED, RED)]):
        first, second = draw(pipe, [RED, RED])
    assert torch.allclose(first, second, atol=1e-6)


def test_without_guidance_rows_are_the_pictures_themselves(pipe: Any) -> None:
    free = draw(pipe, [RED, BLUE], guidance_scale=1.0)
    with freezing(pipe.unet, 2, [all_but_the_difference(RED, BLUE)]):
        held = draw(pipe, [RED, BLUE], guidance_scale=1.0)
    assert torch.allclose(held[0], free[0], atol=1e-4)
    assert not torch.allclose(held[1], free[1], atol=1e-3)


def test_other_numbers_of_rows_are_not_guessed(pipe: Any) -> None:
    with pytest.raises(UnsupportedModel, match="4 rows for 3 pictures"), freezing(pipe.unet, 3, [Freeze(0, 1, (1,), (1,))]):
        draw(pipe, [RED, BLUE])


def test_what_cannot_be_frozen_is_said(pipe: Any) -> None:
    with pytest.raises(BadArgument, match="not both in a batch of 2"), freezing(pipe.unet, 2, [Freeze(0, 2, (1,), (1,))]):
        pass
    before = dict(pipe.unet.attn_processors)
    name = next(n for n in before if "attn2" in n)
    pipe.unet.set_attn_processor({**before, name: lambda *a, **k: None})
    try:
        with pytest.raises(UnsupportedModel, match="cannot be frozen under"), freezing(pipe.unet, 1, []):
            pass
    finally:
        pipe.unet.set_attn_processor(dict(before))
    assert pipe.unet.attn_processors == before
