"""Rules for concepts against sums written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from daam_core.attention import scores
from daam_core.attention.concepts import Shares, add_fractions, fractions, output_fractions
from daam_core.capture.concept_texts import Columns, ConceptTexts, texts_to_encode
from daam_core.prompt.concepts import Concept, concepts_of, rivals_of
from daam_core.prompt.prompt import Prompt, Token, Word

HEADS, DEPTH, PLACES = 2, 4, 6
SCALE = 0.6


def plain_prompt(*words: str, length: int) -> Prompt:
    """Start, one column a word, end, padding."""
    tokens = tuple(Token(i, word, i) for i, word in enumerate(words, start=1))
    end = len(words) + 1
    found = tuple(Word(token.text, token.text, (token.channel,)) for token in tokens)
    return Prompt(" ".join(words), tokens, found, (0,), (end,), tuple(range(end + 1, length)), length)


PROMPT = plain_prompt("a", "red", "house", length=7)


def encoded(concepts: tuple[Concept, ...], rule: str) -> tuple[ConceptTexts, torch.Tensor]:
    """Concepts with random states, and the projection that makes keys of them."""
    generator = torch.Generator().manual_seed(5)
    labels, texts = texts_to_encode(concepts)
    prompts = tuple(plain_prompt(*text.split(), length=7) for text in texts)
    states = torch.randn(len(texts), 7, 5, generator=generator)
    to_k = torch.randn(5, HEADS * DEPTH, generator=generator)
    return ConceptTexts(concepts, tuple(labels), prompts, states, rule), to_k  # type: ignore[arg-type]


def test_every_rule_is_the_sum_written_out() -> None:
    concepts = concepts_of({"tree": "a tree", "dog tail": "a dog tail", "red sky": "a red sky"})
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(PLACES, HEADS * DEPTH, generator=generator)
    k = torch.randn(PROMPT.length, HEADS * DEPTH, generator=generator)
    for rule in ("prompt", "ovam", "column"):
        texts, to_k = encoded(concepts, rule)
        columns = texts.columns_for(PROMPT, "cpu")
        keys = torch.cat([k[columns.kept], texts.needed_states() @ to_k])
        into = torch.zeros(2, PLACES, len(concepts))
        add_fractions(into, q[None], keys[None], columns.shares, HEADS, SCALE)
        where, whether = written_out(rule, texts, to_k, q, k)
        assert torch.allclose(into[0].double(), where, rtol=0, atol=1e-5), rule
        assert torch.allclose(into[1].double(), whether, rtol=0, atol=1e-5), rule
        assert float(where.max()) > 1e-3


def written_out(
    rule: str, texts: ConceptTexts, to_k: torch.Tensor, q: torch.Tensor, k: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Place by place, head by head, concept by concept, in float64."""
    where = torch.zeros(PLACES, texts.num_concepts, dtype=torch.float64)
    whether = torch.zeros(HEADS, PLACES, texts.num_concepts, dtype=torch.float64)
    own_words = {"tree": [2], "dog tail": [2, 3], "red sky": [2, 3]}
    against = {"tree": [1, 2, 3], "dog tail": [1, 2, 3], "red sky": [1, 3]}  # "red" is the concept's own word
    every = [state.double() @ to_k.double() for state in texts.states]
    keys = dict(zip(texts.labels[:3], every[:3], strict=True))
    others = dict(zip(texts.labels[3:], every[3:], strict=True))
    for place in range(PLACES):
        for head in range(HEADS):
            part = slice(head * DEPTH, (head + 1) * DEPTH)

            def e(key: torch.Tensor, place: int = place, part: slice = part) -> float:
                return math.exp(SCALE * float(q[place, part].double() @ key[part].double()))

            for c, concept in enumerate(texts.concepts):
                own = sum(e(keys[concept.label][column]) for column in own_words[concept.label])
                words = sum(e(k[column]) for column in against[concept.label])
                below = {
                    "prompt": own + words,
                    "ovam": sum(e(keys[concept.label][column]) for column in range(7)),
                    "column": sum(e(k[column]) for column in range(7)),
                }[rule]
                rivals = sum(e(others[rival][2]) for rival in rivals_of(concept))
                where[place, c] += own / below
                whether[head, place, c] = own / (own + words + rivals)
    presence = torch.zeros_like(where)
    for head in whether:
        spread = ((head - head.mean(0)) ** 2).mean(0)
        presence += spread * head
    return where, presence


def test_slices_and_large_scores_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, to_k = encoded(concepts_of("tree"), "prompt")
    columns = texts.columns_for(PROMPT, "cpu")
    q, k = torch.randn(50, HEADS * DEPTH), torch.randn(PROMPT.length, HEADS * DEPTH)
    keys = torch.cat([k[columns.kept], texts.needed_states() @ to_k])

    def sums(q: torch.Tensor) -> torch.Tensor:
        into = torch.zeros(2, len(q), 1)
        add_fractions(into, q[None], keys[None], columns.shares, HEADS, SCALE)
        return into

    whole = sums(q)
    monkeypatch.setattr(scores, "CPU_BYTES", 500)
    assert torch.allclose(sums(q), whole, atol=1e-6)
    huge = sums(q * 1000)
    assert bool(huge.isfinite().all()) and float(huge.max()) <= HEADS + 1e-5


def test_a_fraction_that_vanishes_is_zero() -> None:
    s = torch.tensor([[200.0], [0.0], [0.0]])
    assert fractions(s, Shares.of(3, [{1}], [[{1, 2}]]))[0].tolist() == [[0.0]]


def test_concept_attention_is_the_softmax_of_output_products() -> None:
    o, c = torch.randn(5, 3), torch.randn(4, 3)
    found = output_fractions(o, c)
    for i in range(5):
        e = [math.exp(float(o[i].double() @ one.double())) for one in c]
        assert found[i].tolist() == pytest.approx([x / sum(e) for x in e], abs=1e-5)


def test_columns_lie_where_the_pictures_do() -> None:
    texts, _ = encoded(concepts_of("tree"), "prompt")
    columns = texts.columns_for(PROMPT, "cpu")
    assert isinstance(columns, Columns) and columns.kept.tolist() == [1, 2, 3]
