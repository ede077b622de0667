"""Words that stand for objects, by their wording alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daam_core.prompt.objects import object_words
from daam_core.prompt.prompt import Prompt
from daam_core.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_tokenizer(Path(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("a red house and a green tree", ["house", "tree"]),
        ("a red house above a green tree at night", ["house", "tree"]),
        ("a boat next to the sun on the grass", ["boat", "sun"]),
        ("a house that is red", ["house"]),
        ("in snow a small fish", ["fish"]),
        ("a fish in the big blue sea with a boat", ["fish", "boat"]),
        ("a cat, a dog", ["cat", "dog"]),
        ("red", []),
        ("", []),
    ],
)
def test_objects(tokenizer: Any, text: str, objects: list[str]) -> None:
    ids = tokenizer(text, padding="max_length", max_length=77).input_ids
    assert object_words(Prompt.from_ids(ids, tokenizer, text=text)) == objects
