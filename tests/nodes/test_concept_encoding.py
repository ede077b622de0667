"""Concepts beside a prompt: encoded when the encoder is another, read from its own columns, told where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]
WORDS = ["<s>", "</s>", "a</w>", "moon</w>", "boat</w>", *(f"{word}</w>" for word in ["house", "tree", "sun", "star", "fish"])]
WORDS += [f"{word}</w>" for word in ["mushroom", "balloon", "flower", "car", "heart"]]


class Tokenizer:
    """A word a token, chunks of 8."""

    clip_l = SimpleNamespace(start_token=0, end_token=1, inv_vocab=dict(enumerate(WORDS)))

    def tokenize_with_weights(self, text: str) -> dict[str, Any]:
        ids = [WORDS.index(f"{word}</w>") for word in text.split()]
        chunks = [ids[i : i + 6] for i in range(0, len(ids), 6)]
        return {"l": [[(i, 1.0) for i in (0, *chunk, *[1] * (7 - len(chunk)))] for chunk in chunks]}


class Encoder:
    """Column c of token i is `[i, c, style]`; counts the texts it is given."""

    def __init__(self) -> None:
        self.style = 0.0
        self.calls: list[int] = []

    def encode_token_weights(self, tokens: Any) -> Any:
        self.calls.append(len(tokens["l"]))
        rows = [[float(i), float(c), self.style] for chunk in tokens["l"] for c, (i, _) in enumerate(chunk)]
        return torch.tensor(rows)[None], None


def encoded(pack: Pack, asked: str) -> Any:
    concepts = pack("daam_core.prompt.concepts").concepts_of(asked)
    return pack("nodes.capture.concept_encoding").ConceptEncoder(concepts)


def test_each_concept_stands_at_its_own_column(pack: Pack) -> None:
    encoder, beside = Encoder(), encoded(pack, "moon, boat")
    texts = beside.beside_prompt(encoder, Tokenizer())
    assert texts.labels[:2] == ("moon", "boat") and texts.num_concepts == 2
    own = texts.needed_states()
    assert own[:2].tolist() == [[3.0, 2.0, 0.0], [4.0, 2.0, 0.0]]  # "a moon", "a boat" behind the start
    assert texts.states.shape[1] == 3, "columns that nobody needs are not kept"


def test_concepts_are_encoded_again_only_where_the_encoder_has_changed(pack: Pack) -> None:
    encoder, beside = Encoder(), encoded(pack, "moon, boat")
    first = beside.beside_prompt(encoder, Tokenizer())
    assert encoder.calls == [1, len(first.labels)]
    assert beside.beside_prompt(encoder, Tokenizer()) is first and encoder.calls[2:] == [1]
    encoder.style = 1.0  # as a LoRA or another CLIP skip changes what it gives out
    second = beside.beside_prompt(encoder, Tokenizer())
    assert second is not first and bool((second.states[..., 2] == 1).all())


@pytest.mark.parametrize(
    ("asked", "reason"),
    [("moon " * 7, "longer than the text encoder reads at once"), ("zebra", "the text encoder did not encode the concepts")],
)
def test_what_cannot_be_encoded_is_a_sentence(pack: Pack, asked: str, reason: str) -> None:
    said = encoded(pack, asked).beside_prompt(Encoder(), Tokenizer())
    assert isinstance(said, str) and reason in said
