"""What SD.Next's own parser made of a prompt, read with stand-ins for the host's functions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from daam_core.errors import NothingRecorded, UnsupportedModel
from daam_core.prompt.emphasis import parse_weights
from daam_webui import hosts
from daam_webui.hosts.sdnext import SDNext
from daam_webui.pipeline_pass import PipelinePass

from ..core.models import tokenizer
from .test_pipeline_session import tokenize


class Provider:
    """`compel`'s, as far as it is asked for tokens."""

    def __init__(self, tokenizer: Any, text_encoder: Any, truncate: bool, device: str) -> None:
        assert text_encoder is None and not truncate
        self.read = tokenize(SimpleNamespace(tokenizer=tokenizer))

    def get_token_ids_and_expand_weights(self, texts: Sequence[str], weights: Sequence[float], device: str) -> Any:
        ids, each = self.read(texts, weights)
        return torch.tensor(ids), torch.tensor(each), None


def split(_pipe: Any, prompt: str) -> list[str]:
    """Text for each encoder, as `TE2:` says."""
    first, _, second = prompt.partition("TE2:")
    return [first.strip(), (second or first).strip(), first.strip(), first.strip()]


def fragments(pipe: Any, text: str, prompt_mean_norm: Any = None) -> tuple[tuple[str, ...], tuple[float, ...]]:
    assert not hasattr(pipe, "embedding_db"), "the host's list of embeddings that were used would be emptied"
    found: list[tuple[str, float]] = []
    for number, part in enumerate(text.split(" BREAK ")):
        found += [("BREAK", -1.0)] * (number > 0) + (parse_weights(part) or [("", 1.0)])
    texts, weights = zip(*found, strict=True)
    return texts, weights


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SDNext:
    parser = SimpleNamespace(split_prompts=split, get_prompts_with_weights=fragments, cache={"old": 1}, embedder=None)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(prompt_parser_diffusers=parser))
    monkeypatch.setitem(sys.modules, "modules.prompt_parser_diffusers", parser)  # type: ignore[arg-type]
    provider = SimpleNamespace(EmbeddingsProvider=Provider)
    monkeypatch.setitem(sys.modules, "compel", SimpleNamespace(embeddings_provider=provider))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "compel.embeddings_provider", provider)  # type: ignore[arg-type]
    return SDNext()


def painted(encoders: int = 1) -> PipelinePass:
    pipe = SimpleNamespace(unet=object(), tokenizer=tokenizer(), embedding_db="the host's")
    if encoders == 2:
        pipe.tokenizer_2 = tokenizer()
    return PipelinePass(SimpleNamespace(), pipe, [""], [""])


def encode(one: PipelinePass, host: SDNext, *sections: list[tuple[str, float]]) -> None:
    """What the host does while it makes the arguments of a call."""
    from compel.embeddings_provider import EmbeddingsProvider

    with host.encoding(one.tokens):
        provider = EmbeddingsProvider(tokenizer=one.pipe.tokenizer, text_encoder=None, truncate=False, device="cpu")
        for section in sections:
            provider.get_token_ids_and_expand_weights([t for t, _ in section], [w for _, w in section], device="cpu")


def test_the_tokens_that_were_encoded_prove_the_words(host: SDNext) -> None:
    one = painted()
    encode(one, host, [("a ", 1.0), ("red", 1.5), (" house", 1.0)], [("a tree", 1.0)])
    assert sys.modules["modules.prompt_parser_diffusers"].cache == {}, "what was encoded before was not seen"  # type: ignore[attr-defined]
    prompt = host.words(one, "a (red:1.5) house BREAK a tree", 154, False)
    assert prompt.labels == ["a", "red", "house", "a#2", "tree"]
    assert [token.column for token in prompt.tokens] == [1, 2, 3, 78, 79]


def test_break_is_a_word_of_a_negative_prompt(host: SDNext) -> None:
    """There the host encodes all fragments at once."""
    one = painted()
    encode(one, host, [("a house", 1.0), ("BREAK", -1.0), ("a tree", 1.0)])
    assert "break" in host.words(one, "a house BREAK a tree", 77, True).labels[2].casefold()


def test_two_encoders_with_texts_of_their_own_share_their_columns(host: SDNext) -> None:
    one = painted(2)
    encode(one, host, [("a red house", 1.0)], [("a green tree", 1.0)])
    assert host.words(one, "a red house TE2: a green tree", 77, False).labels == ["a", "red", "house", "green", "tree"]


def test_other_tokens_are_refused_in_a_sentence_that_says_what_to_choose(host: SDNext) -> None:
    """The parser xhinker tokenizes by itself, so none of its tokens is seen."""
    with pytest.raises(NothingRecorded, match=r"other tokens.*Choose “native”"):
        host.words(painted(), "a red house", 77, False)


def test_a_transformer_that_the_host_encodes_for_is_refused(host: SDNext) -> None:
    one = painted()
    one.pipe = SimpleNamespace(transformer=object())
    with pytest.raises(UnsupportedModel, match=r"SimpleNamespace, by its own encoders"):
        host.words(one, "a red house", 154, False)


def test_a_prompt_that_changes_is_refused(host: SDNext) -> None:
    host.require_one_text()
    sys.modules["modules.prompt_parser_diffusers"].embedder = SimpleNamespace(scheduled_prompt=True)  # type: ignore[attr-defined]
    with pytest.raises(NothingRecorded, match="changes while the picture is sampled"):
        host.require_one_text()


def test_a_host_without_pipelines_is_not_taken_for_sdnext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace())
    assert not hosts.paints_with_pipelines()
