"""Every word of the world is one token; every other text survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daam_core.tiny.tokenizer import bpe, build_tokenizer, byte_alphabet, merges_for, words


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("word", words())
def test_a_word_of_the_world_is_one_token(tokenizer: Any, word: str) -> None:
    assert tokenizer.tokenize(word) == [word + "</w>"]
    assert tokenizer.tokenize(word.upper()) == [word + "</w>"]


@pytest.mark.parametrize("text", ["zebra", "café", "тигр", "a red house's roof", "🦊", "x" * 300])
def test_any_text_tokenises_and_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_prompts_are_padded_to_77_with_the_end_token(tokenizer: Any) -> None:
    ids = tokenizer("a red house, and a sun!", padding="max_length").input_ids
    assert len(ids) == 77
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[9:]) == {tokenizer.eos_token_id}
    assert tokenizer.convert_ids_to_tokens(ids[4]) == ",</w>"


def test_a_long_prompt_can_be_cut(tokenizer: Any) -> None:
    assert len(tokenizer("house " * 200, truncation=True).input_ids) == 77


def test_the_byte_alphabet_is_complete() -> None:
    assert len(set(byte_alphabet())) == 256


def test_merges_do_not_break_each_other() -> None:
    merges = merges_for(["star", "stare", "tar", "are", "art"])
    for word in ("star", "stare", "tar", "are", "art"):
        assert bpe(word, merges) == [word + "</w>"]
    assert len(bpe("zzz", merges)) == 3


def test_files_are_clip_files(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= {p.name for p in tmp_path.iterdir()}
